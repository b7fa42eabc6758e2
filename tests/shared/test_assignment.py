"""An assignment applies to one device, once in order, for a time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wavegate_shared.assignment import Assignment, SlotAssignment, check_assignment
from wavegate_shared.errors import TrustError

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def assignment(**changes: Any) -> Assignment:
    slot = SlotAssignment(model="m", target="m/1.json", length=10, sha256="a" * 64, release_seq=1)
    plain: dict[str, Any] = {"device": "a", "seq": 5, "issued": NOW, "expires": NOW + timedelta(days=7)}
    return Assignment(**{**plain, "slots": {"main": slot}, **changes})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"device": "b"}, "wrong_device"),
        ({"seq": 4}, "assignment_replayed"),
        ({"expires": NOW}, "assignment_expired"),
        ({"issued": datetime(2026, 5, 1)}, "message_malformed"),
    ],
)
def test_an_assignment_that_does_not_apply_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(TrustError) as caught:
        check_assignment(assignment(**changes), device="a", last_seq=5, now=NOW)
    assert caught.value.code == code


def test_the_same_assignment_again_is_no_replay() -> None:
    check_assignment(assignment(seq=5), device="a", last_seq=5, now=NOW)
