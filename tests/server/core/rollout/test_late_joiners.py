import pytest

from wavegate_server.core.gate.policy import dump_policy, parse_policy
from wavegate_server.core.rollout.late_joiners import Choice, late_policy, parse_choice
from wavegate_shared.errors import UsageError


@pytest.mark.parametrize(
    ("choice", "fits", "text"),
    [
        (Choice(), True, "all"),
        (Choice(hardware_class="pi4"), True, "class=pi4"),
        (Choice(hardware_class="pi5"), False, "class=pi5"),
        (Choice(site="berlin", hardware_class="pi4"), True, "class=pi4,site=berlin"),
        (Choice(site="lyon"), False, "site=lyon"),
        (Choice(labels={"ring": "early"}), True, "label.ring=early"),
        (Choice(labels={"z": "1", "ring": "early"}), False, "label.ring=early,label.z=1"),
    ],
)
def test_a_device_fits_when_everything_that_is_given_matches(choice: Choice, fits: bool, text: str) -> None:
    assert choice.fits("pi4", "berlin", {"ring": "early", "floor": "2"}) is fits
    assert str(choice) == text


def test_a_choice_is_read_as_it_was_written() -> None:
    assert parse_choice({"class": "pi4", "labels": {"ring": "early"}}) == Choice("pi4", "", {"ring": "early"})
    assert parse_choice({}) == Choice()


@pytest.mark.parametrize("values", [{"model": "m"}, {"site": 3}, {"labels": ["a"]}, {"ids": ["d1"]}])
def test_what_is_no_lasting_trait_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="a fleet default is for") as refused:
        parse_choice(values)
    assert refused.value.code == "invalid"


def test_late_joiners_go_a_few_at_a_time_without_a_soak_under_the_same_probation() -> None:
    source = dump_policy(
        parse_policy(
            {
                "waves": [{"name": "canary", "count": 1}],
                "soak_s": 3600,
                "require_approval": True,
                "start_at": "2026-03-01T00:00:00Z",
                "seed": "mine",
                "margins": {"accuracy": 0.02},
                "probation": {"requests": 7},
            }
        )
    )
    policy = parse_policy(late_policy(source))
    assert [(wave.name, wave.percent) for wave in policy.waves] == [("late joiners", 100.0)]
    assert (policy.soak_s, policy.max_in_flight, policy.require_approval, policy.start_at) == (0.0, 5, False, None)
    assert (policy.margins["accuracy"], policy.probation.requests, policy.seed) == (0.02, 7, "")
    assert policy.failure_budget(1) == 1  # one device that cannot run it says nothing about the version
    assert policy.failure_budget(10) == 5
    assert policy.late_joiners == "ignore"


def test_a_default_set_by_a_person_has_a_policy_too() -> None:
    assert parse_policy(late_policy({})).soak_s == 0.0
