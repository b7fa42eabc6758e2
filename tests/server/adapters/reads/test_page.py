"""Cursors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.adapters.reads.page import cursor_text, cursor_value
from wavegate_shared.errors import UsageError


@given(st.text(st.characters(codec="utf-8")) | st.integers())
def test_a_cursor_gives_its_position_back(position: str | int) -> None:
    assert cursor_value(cursor_text(position)) == str(position)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        cursor_value(text)
    except UsageError as error:
        assert error.code == "invalid"  # noqa: PT017 - either outcome is right, a third is not


def test_a_broken_cursor_is_refused() -> None:
    with pytest.raises(UsageError, match="invalid"):
        cursor_value("!!")
