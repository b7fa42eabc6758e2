"""The context is made once and never changed."""

from dataclasses import FrozenInstanceError

import pytest

from tests.support.api_server import Api


def test_the_context_is_frozen_and_has_no_checks_of_its_own(api: Api) -> None:
    assert api.context.checks == {}
    with pytest.raises(FrozenInstanceError):
        api.context.engine = None  # type: ignore[assignment,misc]  # the point of the test
