"""Metrics: a name, a unit and a direction, so that an error gates like an accuracy.

A score is made per sample; a metric is the mean of scores. That holds for accuracy (score 0 or 1) and for an error
(score = the error), and makes sums mergeable over windows and devices. Pure Python on purpose: the golden set of a device
has a few hundred samples, and the agent's control process has no numpy.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

__all__ = ["SCORERS", "Direction", "Metric", "at_least_as_good", "loss", "score"]


class Direction(StrEnum):
    """Which way is better."""

    UP = "up"
    DOWN = "down"


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What a version is judged by.

    Attributes:
        name: a key of `SCORERS`, as `accuracy`.
        unit: what a value counts in, as `share` or `mm`.
        direction: `up` where more is better, `down` where less is.
    """

    name: str
    unit: str = "share"
    direction: Direction = Direction.UP


def _top1(output: Sequence[float], label: float) -> float:
    best = max(range(len(output)), key=output.__getitem__)
    return 1.0 if best == int(label) else 0.0


def _absolute_error(output: Sequence[float], label: float) -> float:
    return abs(output[0] - label)


SCORERS: dict[str, Callable[[Sequence[float], float], float]] = {
    "accuracy": _top1,
    "mean_absolute_error": _absolute_error,
}
"""Score of one sample from its flat output and its label."""


def score(metric: Metric, output: Sequence[float], label: float) -> float:
    """The score of one sample; a non-finite output scores worst: 0 for `up`, infinity for `down`.

    Raises:
        KeyError: the metric's name is not known here.
    """
    scorer = SCORERS[metric.name]
    if not output or not all(math.isfinite(value) for value in output):
        return 0.0 if metric.direction is Direction.UP else math.inf
    return scorer(output, label)


def loss(metric: Metric, before: float, after: float) -> float:
    """How much worse `after` is than `before`, in the metric's unit; negative when it got better."""
    return before - after if metric.direction is Direction.UP else after - before


def at_least_as_good(metric: Metric, value: float, limit: float) -> bool:
    """Whether `value` keeps to `limit` (a floor for `up`, a ceiling for `down`); NaN never does."""
    return value >= limit if metric.direction is Direction.UP else value <= limit
