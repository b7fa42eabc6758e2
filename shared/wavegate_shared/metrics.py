"""Metrics: a name, a unit and a direction, so that an error gates like an accuracy.

A score is made per sample. For most metrics the metric is the mean of the scores, which makes sums mergeable over windows
and devices. F1, AUC and the root mean squared error are of a whole set: `evaluate` computes them, and their scores say
whether, or how far, one answer was off.
Pure Python on purpose: the golden set of a device has a few hundred samples, and the agent's control process has no numpy.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

__all__ = [
    "BOX_NUMBERS",
    "LEAST_OVERLAP",
    "LEAST_SCORE",
    "LESS_IS_BETTER",
    "OF_THE_SET",
    "SCORERS",
    "Direction",
    "Label",
    "Metric",
    "at_least_as_good",
    "evaluate",
    "loss",
    "score",
]

Label = float | Sequence[float]
"""A class, a number, or several: token ids (padded with -1), target values, or boxes of six numbers."""

BOX_NUMBERS = 6
"""A detected box: x1, y1, x2, y2, score, class."""
LEAST_SCORE = 0.25
"""Boxes below it count for nothing."""
LEAST_OVERLAP = 0.5
"""Shared area / joint area from which on two boxes are the same one."""


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
        bound: for `error_bound`: how far an answer may be off.
        relative: for `error_bound`: whether `bound` is a share of the wanted value, or in its unit.
    """

    name: str
    unit: str = "share"
    direction: Direction = Direction.UP
    bound: float = 0.05
    relative: bool = True


def _class(output: Sequence[float]) -> int:
    """The predicted class; a single number is the probability of class 1."""
    return int(output[0] > 0.5) if len(output) == 1 else max(range(len(output)), key=output.__getitem__)


def _right(output: Sequence[float], label: Label) -> float:
    return 1.0 if _class(output) == int(_values(label)[0]) else 0.0


def _absolute_error(output: Sequence[float], label: Label) -> float:
    apart = _apart(output, label)
    return math.inf if apart is None else math.fsum(map(abs, apart)) / max(len(apart), 1)


def _root_of_squares(output: Sequence[float], label: Label) -> float:
    apart = _apart(output, label)
    return math.inf if apart is None else math.hypot(*apart) / math.sqrt(max(len(apart), 1))


def _within(output: Sequence[float], label: Label, bound: float = 0.05, *, relative: bool = True) -> float:
    """Whether an answer is near enough; one of several values by the root of their squares together."""
    off = _root_of_squares(output, label)
    wanted = [value for value in _values(label) if value == value]
    size = math.hypot(*wanted) / math.sqrt(max(len(wanted), 1)) if relative else 1.0
    return 1.0 if off <= bound * size else 0.0


def _apart(output: Sequence[float], label: Label) -> list[float] | None:
    """Differences from the wanted values, of which NaN asks for nothing; None when there are too few outputs."""
    wanted = _values(label)
    if len(output) < len(wanted):
        return None
    return [got - want for got, want in zip(output, wanted, strict=False) if want == want]


def _exact_match(output: Sequence[float], label: Label) -> float:
    return 1.0 if _tokens(output) == _tokens(_values(label)) else 0.0


def _character_errors(output: Sequence[float], label: Label) -> float:
    """Edits per wanted character."""
    got, wanted = _tokens(output), _tokens(_values(label))
    row = list(range(len(got) + 1))
    for number, token in enumerate(wanted, 1):
        previous, row[0] = row[0], number
        for at, other in enumerate(got, 1):
            previous, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, previous + (token != other))
    return row[-1] / max(len(wanted), 1)


def _detection_agreement(output: Sequence[float], label: Label) -> float:
    """F1 of boxes found again: same class, overlap of 0.5 or more; a box is x1, y1, x2, y2, score, class."""
    got, wanted = _boxes(output), _boxes(_values(label))
    if not got or not wanted:
        return 1.0 if got == wanted else 0.0
    left, found = list(wanted), 0
    for box in sorted(got, key=lambda each: -each[4]):
        best = max(left, key=lambda other: _overlap(box, other), default=None)
        if best is not None and best[5] == box[5] and _overlap(box, best) >= LEAST_OVERLAP:
            left.remove(best)
            found += 1
    return 2 * found / (len(got) + len(wanted))


def _values(label: Label) -> Sequence[float]:
    return (float(label),) if isinstance(label, int | float) else label


def _tokens(values: Sequence[float]) -> list[int]:
    return [round(value) for value in values if value >= 0]


def _boxes(values: Sequence[float]) -> list[Sequence[float]]:
    rows = [values[at : at + BOX_NUMBERS] for at in range(0, len(values) - BOX_NUMBERS + 1, BOX_NUMBERS)]
    return [row for row in rows if row[4] >= LEAST_SCORE]


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0 or a[5] != b[5]:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


SCORERS: dict[str, Callable[[Sequence[float], Label], float]] = {
    "accuracy": _right,
    "agreement": _right,
    "auc": _right,
    "f1": _right,
    "mean_absolute_error": _absolute_error,
    "root_mean_squared_error": _root_of_squares,
    "error_bound": _within,
    "exact_match": _exact_match,
    "character_error_rate": _character_errors,
    "detection_agreement": _detection_agreement,
}
"""Score of one sample from its flat output and its label."""

OF_THE_SET = frozenset({"auc", "f1", "root_mean_squared_error"})
"""Metrics that are not the mean of their scores."""
LESS_IS_BETTER = frozenset({"mean_absolute_error", "root_mean_squared_error", "character_error_rate"})
"""Metrics with direction `down`; all others go `up`."""


def score(metric: Metric, output: Sequence[float], label: Label) -> float:
    """The score of one sample; a non-finite output scores worst: 0 for `up`, infinity for `down`.

    Raises:
        KeyError: the metric's name is not known here.
    """
    scorer = SCORERS[metric.name]
    if not output or not all(math.isfinite(value) for value in output):
        return 0.0 if metric.direction is Direction.UP else math.inf
    if metric.name == "error_bound":
        return _within(output, label, metric.bound, relative=metric.relative)
    return scorer(output, label)


def evaluate(metric: Metric, outputs: Sequence[Sequence[float]], labels: Sequence[Label]) -> float:
    """The metric over any set of n >= 1 samples: flat outputs and their labels, in one order.

    F1 is of class 1; AUC is the share of (1, 0) pairs that are ranked right, NaN where a class is missing.
    """
    if metric.name not in OF_THE_SET:
        return math.fsum(score(metric, out, label) for out, label in zip(outputs, labels, strict=True)) / len(outputs)
    if metric.name == "root_mean_squared_error":
        return math.hypot(*(score(metric, out, label) for out, label in zip(outputs, labels, strict=True))) / math.sqrt(
            len(outputs)
        )
    if not all(math.isfinite(value) for output in outputs for value in output):
        return 0.0
    truth = [int(_values(label)[0]) for label in labels]
    if metric.name == "f1":
        return _f1([_class(output) for output in outputs], truth)
    return _auc([output[-1] - (output[0] if len(output) > 1 else 0.0) for output in outputs], truth)


def _f1(said: Sequence[int], truth: Sequence[int]) -> float:
    hits = sum(1 for a, b in zip(said, truth, strict=True) if a == b == 1)
    total = said.count(1) + truth.count(1)
    return 2 * hits / total if total else 1.0


def _auc(margins: Sequence[float], truth: Sequence[int]) -> float:
    """By ranks; ties count half."""
    order = sorted(range(len(margins)), key=margins.__getitem__)
    ones = sum(1 for label in truth if label == 1)
    if ones in (0, len(truth)):
        return math.nan
    ranks, at = 0.0, 0
    while at < len(order):
        end = at
        while end < len(order) and margins[order[end]] == margins[order[at]]:
            end += 1
        middle = (at + 1 + end) / 2
        ranks += middle * sum(1 for place in order[at:end] if truth[place] == 1)
        at = end
    return (ranks - ones * (ones + 1) / 2) / (ones * (len(truth) - ones))


def loss(metric: Metric, before: float, after: float) -> float:
    """How much worse `after` is than `before`, in the metric's unit; negative when it got better."""
    return before - after if metric.direction is Direction.UP else after - before


def at_least_as_good(metric: Metric, value: float, limit: float) -> bool:
    """Whether `value` keeps to `limit` (a floor for `up`, a ceiling for `down`); NaN never does."""
    return value >= limit if metric.direction is Direction.UP else value <= limit
