"""The gate's errors, by simulation: how often an equal version is rolled back, how soon a worse one is.

`false_rollback` is the worst of four A/A worlds over 24 h with a look after every 15-min block, at the default policy (margin
0.5 pt, alpha 1 % over 3 metrics x 4 waves). `naive_false_rollback` is the usual threshold in the same worlds.
"""

import argparse
from typing import Any

import msgspec
import numpy as np

from tests.support import gate_world as world
from wavegate_server.core.gate.evidence import MetricEvidence, MetricSpec
from wavegate_server.core.gate.verdict import Rules

_LABELS = 5
_REQUESTS = 30


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures; `detect_...` are medians in minutes."""
    runs = 20 if options.quick else 120
    slow_runs = 8 if options.quick else 30
    rules = world.default_rules()
    figures: dict[str, Any] = {"runs": runs}
    worst: list[float] = []
    naive: list[float] = []
    for number, (name, fleet) in enumerate((("iid", world.IID), ("spread", world.SPREAD), ("shocks", world.SHOCKS))):
        alarms, simple, exact, proven = _equal(fleet, runs, rules, seed=100 + number)
        figures[f"false_rollback_{name}"], figures[f"naive_false_rollback_{name}"] = alarms, simple
        figures[f"false_rollback_margin0_{name}"] = exact
        figures[f"proven_equal_{name}"] = proven
        worst.append(alarms)
        naive.append(simple)
    fast = world.Fleet(controls=20)
    equal = _p99(fast, 1.0, slow_runs, rules, seed=200)
    figures["false_rollback_p99"] = _share(equal)
    worst.append(_share(equal))
    figures["false_rollback"] = max(worst)
    figures["naive_false_rollback"] = max(naive)
    for points in (1, 2, 5):
        found, passed = _accuracy(world.SPREAD, points / 100.0, max(10, runs // 4), rules, seed=300 + points)
        figures[f"found_minus{points}pp"] = _share(found)
        figures[f"wrongly_proven_minus{points}pp"] = _share(passed)
        figures[f"detect_minus{points}pp_min"] = _median(found)
    slow = _p99(fast, 1.2, slow_runs, rules, seed=400)
    figures["found_p99_x1_2"] = _share(slow)
    figures["detect_p99_x1_2_min"] = _median(slow)
    return figures


def _equal(fleet: world.Fleet, runs: int, rules: Rules, seed: int) -> tuple[float, float, float, float]:
    ours, naive, exact, proven = [], [], [], []
    for number in range(runs):
        rng = np.random.default_rng([seed, number])
        counts = world.correct_labels(rng, fleet, 0.0)
        evidence = world.evidence(world.ACCURACY, fleet, counts, _LABELS)
        ours.append(world.first_alarm(evidence, rules))
        naive.append(world.naive_alarm(fleet, counts, _LABELS))
        strict = MetricSpec("accuracy", "live accuracy", "share", world.ACCURACY.direction, 0.0)
        exact.append(world.first_alarm(_with_spec(evidence, strict), rules))
        proven.append(world.first_pass(evidence, rules))
    return _share(ours), _share(naive), _share(exact), _share(proven)


def _accuracy(
    fleet: world.Fleet, drop: float, runs: int, rules: Rules, seed: int
) -> tuple[list[int | None], list[int | None]]:
    found, passed = [], []
    for number in range(runs):
        counts = world.correct_labels(np.random.default_rng([seed, number]), fleet, drop)
        evidence = world.evidence(world.ACCURACY, fleet, counts, _LABELS)
        found.append(world.first_alarm(evidence, rules))
        passed.append(world.first_pass(evidence, rules))
    return found, passed


def _p99(fleet: world.Fleet, factor: float, runs: int, rules: Rules, seed: int) -> list[int | None]:
    found = []
    for number in range(runs):
        counts = world.slow_requests(np.random.default_rng([seed, number]), fleet, factor, requests=_REQUESTS)
        found.append(world.first_alarm(world.evidence(world.P99, fleet, counts, _REQUESTS), rules))
    return found


def _with_spec(evidence: MetricEvidence, spec: MetricSpec) -> MetricEvidence:
    return msgspec.structs.replace(evidence, spec=spec)


def _share(alarms: list[int | None]) -> float:
    return round(sum(alarm is not None for alarm in alarms) / len(alarms), 4)


def _median(alarms: list[int | None]) -> float | None:
    median = float(np.median([np.inf if alarm is None else alarm for alarm in alarms]))
    return median if np.isfinite(median) else None
