"""The gate in seeded simulated worlds: how often it errs, how soon it finds what is worse (small; the bench is larger)."""

import msgspec
import numpy as np

from tests.support import gate_world as world
from wavegate_server.core.gate.evidence import MetricEvidence, MetricSpec
from wavegate_shared.metrics import Direction

ACCURACY = world.ACCURACY
ERRORS = MetricSpec("errors", "failed requests", "share", Direction.DOWN, 0.005)
MILLIMETRES = MetricSpec("mean_absolute_error", "live mean absolute error", "mm", Direction.DOWN, 0.1)
NOISE = [0.001, -0.001] * 48


SMALL = world.Fleet(canaries=10, controls=20)


def labels(seed: int, drop: float) -> MetricEvidence:
    counts = world.correct_labels(np.random.default_rng(seed), SMALL, drop)
    return world.evidence(world.ACCURACY, SMALL, counts, 5)


def test_an_equal_version_is_not_rolled_back_where_a_threshold_would() -> None:
    alarms, naive = 0, 0
    for seed in range(25):
        counts = world.correct_labels(np.random.default_rng(seed), SMALL, 0.0)
        found = world.evidence(world.ACCURACY, SMALL, counts, 5)
        alarms += world.first_alarm(found, world.default_rules()) is not None
        naive += world.naive_alarm(SMALL, counts, 5) is not None

    assert alarms == 0
    assert naive >= 20


def test_even_without_a_margin_the_stated_error_holds() -> None:
    strict = MetricSpec("accuracy", "live accuracy", "share", Direction.UP, 0.0)
    one_of_one = msgspec.structs.replace(world.default_rules(), alpha=0.05, comparisons=1)

    alarms = [
        world.first_alarm(msgspec.structs.replace(labels(seed, 0.0), spec=strict), one_of_one) for seed in range(25)
    ]

    assert sum(alarm is not None for alarm in alarms) <= 3


def test_two_points_less_accuracy_are_found_within_two_hours() -> None:
    found = [world.first_alarm(labels(seed, 0.02), world.default_rules()) for seed in range(12)]

    assert all(found)
    assert np.median([minutes or np.inf for minutes in found]) <= 120


def test_twenty_per_cent_more_latency_is_found_within_half_an_hour() -> None:
    fleet = world.Fleet(canaries=10, controls=10)
    counts = [world.slow_requests(np.random.default_rng(seed), fleet, 1.2, requests=10) for seed in range(4)]

    found = [world.first_alarm(world.evidence(world.P99, fleet, each, 10), world.default_rules()) for each in counts]

    assert all(minutes is not None and minutes <= 30 for minutes in found)


def test_a_worse_version_is_not_called_proven() -> None:
    passed = [world.first_pass(labels(seed, 0.01), world.default_rules()) for seed in range(12)]

    assert passed == [None] * 12


DEMO = world.Fleet(canaries=1, controls=7, shocks_per_day=0.0, minutes_before=10 * 15, minutes_after=10 * 15)
"""The demo's scale, with a block for 15 simulated minutes: one canary, a baseline of 10 blocks, a soak of 10."""


def few(seed: int, drop: float) -> int | None:
    wide = msgspec.structs.replace(world.default_rules(waves=2), few_canaries="wide")
    counts = world.correct_labels(np.random.default_rng(seed), DEMO, drop, labels=2)  # 30 labels a block
    return world.first_alarm(world.evidence(world.ACCURACY, DEMO, counts, 2), wide)


def test_one_canary_with_a_short_baseline_is_no_lottery() -> None:
    assert sum(few(seed, 0.0) is not None for seed in range(300)) == 0


def test_one_canary_shows_a_catastrophe_within_the_soak() -> None:
    assert sum(few(seed, 0.27) is not None for seed in range(100)) >= 90
