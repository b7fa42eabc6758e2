"""State names are stable words: they cross the wire and stand in tables."""

from enum import StrEnum

import pytest

from wavegate_shared import states


@pytest.mark.parametrize("name", states.__all__)
def test_every_state_is_its_own_lower_case_word(name: str) -> None:
    kind: type[StrEnum] = getattr(states, name)
    assert [member.value for member in kind] == [member.name.lower() for member in kind]


def test_the_words_that_older_peers_and_stored_rows_rely_on() -> None:
    assert {state.value for state in states.DeviceState} >= {"idle", "fetching", "golden", "probation", "committed"}
    outcomes = ["proven", "refused", "reverted", "deferred", "broken", "benched", "removed"]
    assert [outcome.value for outcome in states.Outcome] == outcomes
    assert {state.value for state in states.AssignmentState} >= {
        "published",
        "accepted",
        "swapped",
        "proven",
        "deferred",
    }
