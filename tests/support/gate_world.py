"""A fleet whose truth is known, for judging the gate: seeded, block by block, with what real fleets have.

Devices differ (spread), all of them have a day (diurnal), and each now and then has a bad half hour (shocks). The canaries get
a version that is exactly as good (A/A) or worse by a known amount (A/B).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavegate_server.core.gate.decision import judge
from wavegate_server.core.gate.evidence import Cell, MetricEvidence, MetricSpec, Track, compare
from wavegate_server.core.gate.policy import Policy
from wavegate_server.core.gate.verdict import Rules, Verdict
from wavegate_shared.metrics import Direction

Counts = NDArray[np.int64]

BLOCK_MIN = 15
DAY_MIN = 1440
ACCURACY = MetricSpec("accuracy", "live accuracy", "share", Direction.UP, 0.005)
P99 = MetricSpec("p99", "requests slower than the old p99", "share", Direction.DOWN, 0.005)


@dataclass(frozen=True)
class Fleet:
    """The size of a simulated comparison and what disturbs it."""

    canaries: int = 10
    controls: int = 90
    spread: float = 0.015
    diurnal: float = 0.01
    shock: float = 0.02
    shocks_per_day: float = 4.0
    minutes_before: int = DAY_MIN
    minutes_after: int = DAY_MIN


IID = Fleet(spread=0.0, diurnal=0.0, shock=0.0)
SPREAD = Fleet(shock=0.0)
SHOCKS = Fleet()


def default_rules(policy: Policy | None = None, *, waves: int = 4) -> Rules:
    """The gate's rules as a rollout with the default policy has them."""
    policy = policy or Policy()
    return Rules(
        alpha=policy.alpha,
        comparisons=3 * waves,
        min_blocks=policy.min_blocks,
        few_canaries=policy.few_canaries,
        wide_factor=policy.wide_factor,
        at_soak_end=policy.at_soak_end,
        required_metrics=list(policy.required_metrics),
    )


def correct_labels(rng: np.random.Generator, fleet: Fleet, drop: float, *, labels: int = 5) -> Counts:
    """Correct answers per device and minute, (devices, minutes); the canaries come first."""
    devices = fleet.canaries + fleet.controls
    minutes = fleet.minutes_before + fleet.minutes_after
    share = 0.955 + rng.normal(0.0, fleet.spread, (devices, 1))
    share = share + fleet.diurnal * np.sin(2 * np.pi * (np.arange(minutes) / DAY_MIN + rng.random()))
    share = share - fleet.shock * _shocks(rng, devices, minutes, fleet.shocks_per_day)
    share[: fleet.canaries, fleet.minutes_before :] -= drop
    return rng.binomial(labels, np.clip(share, 0.0, 1.0))


def slow_requests(rng: np.random.Generator, fleet: Fleet, factor: float, *, requests: int = 30) -> Counts:
    """Requests over the device's own p99 from before, per device and minute."""
    devices = fleet.canaries + fleet.controls
    minutes = fleet.minutes_before + fleet.minutes_after
    scale = np.log(20.0) + rng.normal(0.0, 0.3, (devices, 1))
    scale = scale + 0.02 * np.sin(2 * np.pi * (np.arange(minutes) / DAY_MIN + rng.random()))
    scale = scale + 0.4 * (rng.random((devices, minutes)) < 0.01)  # bursts of a minute, 1.5 x
    latency = scale[:, :, None] + rng.standard_normal((devices, minutes, requests), dtype=np.float32) * np.float32(0.25)
    latency[: fleet.canaries, fleet.minutes_before :] += np.log(factor)
    before = latency[:, : fleet.minutes_before].reshape(devices, -1)
    limit = np.quantile(before, 0.99, axis=1)
    counts: Counts = (latency > limit[:, None, None]).sum(axis=2, dtype=np.int64)
    return counts


def evidence(spec: MetricSpec, fleet: Fleet, counts: Counts, per_minute: int) -> MetricEvidence:
    """The counts as the gate gets them: cells per device and block, reduced by the product's own code."""
    devices = counts.shape[0]
    sums = counts.reshape(devices, -1, BLOCK_MIN).sum(axis=2)
    split = fleet.minutes_before // BLOCK_MIN
    tracks = [_track(f"d{index}", row.tolist(), split, per_minute * BLOCK_MIN) for index, row in enumerate(sums)]
    return compare(spec, tracks[: fleet.canaries], tracks[fleet.canaries :])


def first_alarm(metric: MetricEvidence, rules: Rules) -> int | None:
    """Minutes until the gate, asked after each block, rolls back; None when it never does."""
    return _first(metric, rules, Verdict.ROLLBACK)


def first_pass(metric: MetricEvidence, rules: Rules) -> int | None:
    """Minutes until the gate calls the version proven not worse."""
    return _first(metric, rules, Verdict.PROMOTE)


def naive_alarm(fleet: Fleet, counts: Counts, per_minute: int, *, margin: float = 0.01, window: int = 30) -> int | None:
    """What most rollouts do: a moving mean against the control's, looked at each minute, in minutes after the swap."""
    after = counts[:, fleet.minutes_before :] / per_minute
    difference = after[fleet.canaries :].mean(axis=0) - after[: fleet.canaries].mean(axis=0)
    moving = np.convolve(difference, np.ones(window) / window, mode="valid")
    alarms = np.flatnonzero(moving > margin)
    return int(alarms[0]) + window if alarms.size else None


def _first(metric: MetricEvidence, rules: Rules, verdict: Verdict) -> int | None:
    for blocks in range(1, len(metric.blocks) + 1):
        seen = MetricEvidence(
            spec=metric.spec,
            measured=True,
            controls=metric.controls,
            baseline=metric.baseline,
            blocks=metric.blocks[:blocks],
            floor=metric.floor,
            shifts=metric.shifts,
        )
        if judge(seen, rules).verdict is verdict:
            return blocks * BLOCK_MIN
    return None


def _track(name: str, sums: Sequence[int], split: int, samples: int) -> Track:
    before = {number: Cell(float(total), samples) for number, total in enumerate(sums[:split])}
    after = {split + number: Cell(float(total), samples) for number, total in enumerate(sums[split:])}
    return Track(name, before, after)


def _shocks(rng: np.random.Generator, devices: int, minutes: int, per_day: float) -> NDArray[np.float64]:
    starts = rng.random((devices, minutes)) < per_day / DAY_MIN
    total = np.cumsum(starts, axis=1)
    lagged = np.concatenate([np.zeros((devices, 30), dtype=total.dtype), total[:, :-30]], axis=1)
    under_way: NDArray[np.float64] = ((total - lagged) > 0).astype(np.float64)
    return under_way
