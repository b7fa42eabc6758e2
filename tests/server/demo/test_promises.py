"""The demo's promises: a good run holds all of them, and each can be broken by what it is about."""

from collections.abc import Callable

import pytest

from wavegate_server.demo.promises import DeviceFacts, Facts, SecondFacts, judge

NAMES = [
    "v1_rolled_out",
    "second_model",
    "v2_promoted",
    "idle_proven",
    "v3_refused",
    "v4_rolled_back",
    "none_dropped",
]


def good() -> Facts:
    """A run as it should be: the first device is the canary, the last one idle; the second and third have two models."""
    plain = [
        DeviceFacts(
            id=f"d{number}",
            hardware_class="c",
            site="s",
            versions=[1, 2],
            served=100,
            bytes_fetched=12_000_000,
            outcomes=["1:proven", "2:proven"],
            offered=[1, 2],
        )
        for number in range(8)
    ]
    plain[0].versions = [1, 2, 4, 2]
    plain[0].outcomes = ["1:proven", "2:proven", "3:refused:golden_failed", "4:proven", "2:proven"]
    plain[0].offered = [1, 2, 3, 4]
    for device in plain[1:3]:
        device.second = SecondFacts(versions=[1], served=20, outcomes=["1:proven"])
    plain[7].idle, plain[7].versions, plain[7].served, plain[7].proved_itself = True, [], 0, [1, 2]
    states = {"1": "completed", "2": "completed", "3": "rolled_back", "4": "rolled_back"}
    return Facts(devices=plain, rollouts=states, rollback_s=4.2)


def broken(facts: Facts) -> set[str]:
    return {promise.name for promise in judge(facts) if not promise.held}


def test_a_good_run_holds_every_promise() -> None:
    assert [promise.name for promise in judge(good())] == NAMES
    assert broken(good()) == set()


def _v1_missing(facts: Facts) -> None:
    facts.devices[3].outcomes.remove("1:proven")


def _v1_never_answered(facts: Facts) -> None:
    facts.devices[3].versions = [2]


def _v2_held(facts: Facts) -> None:
    facts.rollouts["2"] = "paused"


def _v2_not_everywhere(facts: Facts) -> None:
    facts.devices[5].versions = [1]


def _v3_served(facts: Facts) -> None:
    facts.devices[0].versions = [1, 2, 3, 2, 4, 2]


def _v3_spread(facts: Facts) -> None:
    facts.devices[1].offered.append(3)


def _v3_wrong_reason(facts: Facts) -> None:
    facts.devices[0].outcomes[2] = "3:refused:load_failed"


def _v4_stayed(facts: Facts) -> None:
    facts.devices[0].versions = [1, 2, 4]


def _v4_downloaded(facts: Facts) -> None:
    facts.devices[0].rollback_bytes = 5


def _v4_local_revert(facts: Facts) -> None:
    facts.devices[0].outcomes[3] = "4:reverted:probation_failed"


def _v4_on_two(facts: Facts) -> None:
    facts.devices[1].versions = [1, 2, 4, 2]


def _second_taken_away(facts: Facts) -> None:
    assert facts.devices[1].second is not None
    facts.devices[1].second.outcomes.append("1:removed")


def _second_nowhere(facts: Facts) -> None:
    for device in facts.devices:
        device.second = None


def _second_dropped_one(facts: Facts) -> None:
    assert facts.devices[2].second is not None
    facts.devices[2].second.dropped = 1


def _second_never_asked(facts: Facts) -> None:
    assert facts.devices[2].second is not None
    facts.devices[2].second.served = 0


def _idle_unproven(facts: Facts) -> None:
    facts.devices[7].proved_itself = [1]


def _idle_asked(facts: Facts) -> None:
    facts.devices[7].versions = [1]


def _one_dropped(facts: Facts) -> None:
    facts.devices[6].dropped = 1


def _one_never_asked(facts: Facts) -> None:
    facts.devices[6].served = 0


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (_v1_missing, "v1_rolled_out"),
        (_v1_never_answered, "v1_rolled_out"),
        (_second_taken_away, "second_model"),
        (_second_nowhere, "second_model"),
        (_second_dropped_one, "none_dropped"),
        (_second_never_asked, "none_dropped"),
        (_idle_unproven, "idle_proven"),
        (_idle_asked, "idle_proven"),
        (_v2_held, "v2_promoted"),
        (_v2_not_everywhere, "v2_promoted"),
        (_v3_served, "v3_refused"),
        (_v3_spread, "v3_refused"),
        (_v3_wrong_reason, "v3_refused"),
        (_v4_stayed, "v4_rolled_back"),
        (_v4_downloaded, "v4_rolled_back"),
        (_v4_local_revert, "v4_rolled_back"),
        (_v4_on_two, "v4_rolled_back"),
        (_one_dropped, "none_dropped"),
        (_one_never_asked, "none_dropped"),
    ],
)
def test_each_promise_can_be_broken(spoil: Callable[[Facts], None], name: str) -> None:
    facts = good()
    spoil(facts)
    assert name in broken(facts)


def test_nothing_seen_is_nothing_held() -> None:
    assert broken(Facts(devices=[], rollouts={})) == set(NAMES)


def test_without_an_idle_device_nothing_is_promised_of_one() -> None:
    facts = good()
    facts.devices.pop()
    assert [promise.name for promise in judge(facts)] == [name for name in NAMES if name != "idle_proven"]
    assert broken(facts) == set()
