"""Intervals for metrics of a whole set (F1, AUC, RMSE, a user's own), by resampling the same samples of both models together."""

from collections.abc import Iterable, Sequence

from wavegate_server.core.compress.paired import Drop
from wavegate_shared.metrics import Label, Metric, evaluate, loss

__all__ = ["drop_from_draws", "set_drop", "unseen_share"]

Outputs = Sequence[Sequence[float]]
_OF_CLASSES = frozenset({"auc", "f1"})


def set_drop(
    metric: Metric,
    before: Outputs,
    after: Outputs,
    labels: Sequence[Label],
    draws: Iterable[Sequence[int]],
    *,
    level: float = 0.95,
) -> Drop:
    """The drop of a set metric from outputs `before` to `after`.

    Args:
        metric: one of `metrics.OF_THE_SET`.
        before: flat outputs of the original for n samples.
        after: those of the candidate for the same samples.
        labels: their labels.
        draws: resampled places, each n long; at least 200 draws for a usable end of the interval.
        level: one-sided level of each end.
    """
    value = loss(metric, evaluate(metric, before, labels), evaluate(metric, after, labels))
    drawn = []
    for places in draws:
        truth = [labels[at] for at in places]
        old, new = (evaluate(metric, [side[at] for at in places], truth) for side in (before, after))
        drawn.append(loss(metric, old, new))
    if metric.name not in _OF_CLASSES:
        changed = sum(1 for a, b in zip(before, after, strict=True) if list(a) != list(b))
        return drop_from_draws(value, drawn, len(labels), changed, level=level)
    changed = sum(1 for a, b in zip(before, after, strict=True) if _decided(a) != _decided(b))
    rarest = min(_count(labels, 1), len(labels) - _count(labels, 1))
    slack = unseen_share(len(labels), level) * len(labels) / max(rarest, 1) if not changed else 0.0
    return drop_from_draws(value, drawn, len(labels), changed, slack=slack, level=level)


def drop_from_draws(
    value: float, drawn: Sequence[float], samples: int, changed: int, *, slack: float = 0.0, level: float = 0.95
) -> Drop:
    """The percentile interval of drawn drops; `slack` widens it where no change was seen, which proves little."""
    known = sorted(drop for drop in drawn if drop == drop)
    if not known:
        return Drop(value, -1.0, 1.0, samples, changed)
    low = known[int((1 - level) * (len(known) - 1))]
    high = known[min(len(known) - 1, round(level * (len(known) - 1)))]
    return Drop(value, min(low, value - slack), max(high, value + slack), samples, changed)


def unseen_share(samples: int, level: float) -> float:
    """The largest share of changed answers that still shows none among `samples`, at the given level."""
    return float(1.0 - (1.0 - level) ** (1.0 / samples))


def _decided(output: Sequence[float]) -> int:
    return int(output[0] > 0.5) if len(output) == 1 else max(range(len(output)), key=output.__getitem__)


def _count(labels: Sequence[Label], wanted: int) -> int:
    return sum(1 for label in labels if label == wanted)
