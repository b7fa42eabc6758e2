from typing import Any

import pytest

from wavegate_server.core.gate.policy import Policy, dump_policy, parse_policy
from wavegate_shared.errors import UsageError


def test_an_empty_policy_is_a_careful_rollout() -> None:
    policy = parse_policy({})

    assert policy.few_canaries == "human"
    assert policy.waves[0].count == 5
    assert policy.margins == {"accuracy": 0.005, "p99": 0.005, "errors": 0.005}


def test_dump_and_parse_are_inverse() -> None:
    policy = parse_policy({"waves": [{"count": 1}, {"percent": 50}], "soak_s": 12, "start_at": "2026-01-02T03:04:05Z"})

    assert parse_policy(dump_policy(policy)) == policy


def test_a_margin_is_merged_over_the_defaults() -> None:
    policy = parse_policy({"margins": {"mean_absolute_error": 0.2}})

    assert policy.margins["mean_absolute_error"] == 0.2
    assert policy.margins["p99"] == 0.005


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"soak": 3}, "soak"),
        ({"block_s": 0}, "block_s"),
        ({"alpha": 0.7}, "alpha"),
        ({"baseline_blocks": 4}, "baseline_blocks"),
        ({"margins": {"p99": -1}}, "margins"),
        ({"few_canaries": "yes"}, "few_canaries"),
        ({"idle_wave": "yes"}, "idle_wave"),
        ({"probation": {"idle_after": -1}}, "idle_after"),
        ({"probation": {"idle_after": "off"}}, "idle_after"),
        ({"waves": []}, "at least one wave"),
        ({"waves": [{"count": 1, "percent": 5}]}, "either a count or a percent"),
        ({"waves": [{"percent": 50}, {"percent": 20}]}, "must rise"),
        ({"start_at": "2026-01-02T03:04:05"}, "time zone"),
    ],
)
def test_a_bad_policy_is_refused_and_the_field_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named) as refused:
        parse_policy(values)
    assert refused.value.code == "invalid"


@pytest.mark.parametrize(("size", "budget"), [(1, 0), (9, 0), (10, 1), (100, 10)])
def test_the_failure_budget_grows_with_the_wave(size: int, budget: int) -> None:
    assert Policy().failure_budget(size) == budget


def test_a_stated_failure_count_is_the_least_budget() -> None:
    assert Policy(max_install_failures=3).failure_budget(5) == 3


@pytest.mark.parametrize(
    ("probation", "expected"), [({}, 120.0), ({"idle_after": 7}, 7.0), ({"idle_after": None}, None)]
)
def test_own_requests_come_after_two_minutes_unless_told_otherwise(
    probation: dict[str, Any], expected: float | None
) -> None:
    policy = parse_policy({"probation": probation, "idle_wave": "hold"})
    assert policy.probation.idle_after == expected
    assert parse_policy(dump_policy(policy)) == policy
    assert parse_policy({}).idle_wave is None
