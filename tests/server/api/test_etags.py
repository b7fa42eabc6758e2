"""The If-Match rule."""

import pytest

from wavegate_server.api.etags import check_match, etag
from wavegate_shared.errors import UsageError


@pytest.mark.parametrize("header", ['"3"', "*", '"1", "3"', ' "3" '])
def test_the_current_tag_or_a_star_passes(header: str) -> None:
    check_match(header, 3)


@pytest.mark.parametrize("header", ['"2"', "3", 'W/"3"', "", '"33"'])
def test_any_other_tag_is_refused_with_the_present_revision(header: str) -> None:
    with pytest.raises(UsageError, match="at revision 3 now") as raised:
        check_match(header, 3)
    assert raised.value.code == "precondition_failed"


def test_no_tag_at_all_is_refused_differently() -> None:
    with pytest.raises(UsageError) as raised:
        check_match(None, 3)
    assert raised.value.code == "precondition_required"


def test_a_tag_is_the_revision_in_quotes() -> None:
    assert etag(3) == '"3"'
