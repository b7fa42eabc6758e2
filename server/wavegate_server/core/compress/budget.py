"""What a compression must reach, as the operator writes it: `size=-80%,drop=2pt,speed=3x`.

Relative items: `size=-80%`, `drop=2pt` (points of the metric), `speed=3x`, `error=+5%` (for metrics where less is better).
Absolute items: `size<=5MB`, `accuracy>=0.97` (or the metric's own name), `p95<=50ms`, `peak_mem<=128MB`. Of the file after
zstd: `download=-30%`, `download<=2MB`.
A verdict has the measured value and, where there is one, its interval; the metric's items are judged by the bad end of it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from wavegate_server.core.compress.paired import Drop
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Slo
from wavegate_shared.metrics import Direction, Metric

__all__ = [
    "BudgetItem",
    "Measured",
    "Verdict",
    "allowed_drop",
    "default_budget",
    "judge",
    "parse_budget",
    "slo_words",
    "words",
]

_ITEM = re.compile(
    r"(?P<name>[a-z_0-9]+)\s*(?P<op><=|>=|=)\s*(?P<sign>[-+]?)(?P<number>[0-9]*\.?[0-9]+)\s*(?P<unit>[a-zA-Z%]*)"
)
_FORMS = {
    ("size", "=", "%"): "size_change",
    ("drop", "=", "pt"): "drop",
    ("speed", "=", "x"): "speed",
    ("error", "=", "%"): "error_change",
    ("size", "<=", "KB"): "size_bytes",
    ("size", "<=", "MB"): "size_bytes",
    ("download", "=", "%"): "download_change",
    ("download", "<=", "KB"): "download_bytes",
    ("download", "<=", "MB"): "download_bytes",
    ("p95", "<=", "ms"): "p95_ms",
    ("peak_mem", "<=", "MB"): "peak_mb",
}
_LESS = ("size_change", "download_change")
_EXAMPLES = "size=-80%, drop=2pt, speed=3x, error=+5%, size<=5MB, accuracy>=0.97, p95<=50ms, peak_mem<=128MB"


@dataclass(frozen=True, slots=True)
class BudgetItem:
    """One limit. Attributes: text as written, kind (what is compared), limit in the kind's unit."""

    text: str
    kind: str
    limit: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a candidate beside its original. `download_*`: bytes after zstd, where a budget asks for them."""

    size_bytes: int
    size_before: int
    p50_ms: float
    p50_before: float
    p95_ms: float
    peak_mb: float
    metric: Metric
    value: float
    value_before: float
    drop: Drop
    download_bytes: int = 0
    download_before: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one item is met. `low` and `high` are the interval of `value` where there is one."""

    item: str
    met: bool
    value: float
    low: float | None = None
    high: float | None = None


def default_budget(metric: Metric, slo: Slo | None = None) -> str:
    """A budget that most models can meet without training, for a metric where more, or less, is better.

    The limits that the bundle promises (its SLO) are items of it.
    """
    loss = "drop=2pt" if metric.direction is Direction.UP else "error=+5%"
    return ",".join(["size=-70%", loss, *_slo_items(slo or Slo())])


def slo_words(slo: Slo, measured: Measured, place: str) -> list[str]:
    """For each limit that the bundle promises whether the measured one keeps it, as sentences."""
    items = [_parse_item(text, measured.metric) for text in _slo_items(slo)]
    return [
        f"the bundle's SLO {item.text}: {'kept' if verdict.met else 'BROKEN'}, measured {verdict.value:.4g} ({place})"
        for item, verdict in zip(items, judge(items, measured), strict=True)
    ]


def _slo_items(slo: Slo) -> list[str]:
    """Its limits as budget items; the error ceiling is one of live requests, which a job has none of."""
    limits = {"p95<={:.12g}ms": slo.p95_ms, "peak_mem<={:.12g}MB": slo.peak_memory_mb}
    return [text.format(limit) for text, limit in limits.items() if limit is not None]


def parse_budget(text: str, metric: Metric) -> list[BudgetItem]:
    """The items of a budget.

    Raises:
        UsageError: `invalid`, with the item that is wrong and examples of right ones.
    """
    items = [_parse_item(part.strip(), metric) for part in text.split(",") if part.strip()]
    if not items:
        raise UsageError("invalid", Sentence("budget.empty", examples=_EXAMPLES))
    return items


def _parse_item(text: str, metric: Metric) -> BudgetItem:
    match = _ITEM.fullmatch(text)
    if match is None:
        raise UsageError("invalid", Sentence("budget.item", item=repr(text), examples=_EXAMPLES))
    name, op, unit, number = match["name"], match["op"], match["unit"], float(match["number"])
    wanted = ">=" if metric.direction is Direction.UP else "<="
    if name == metric.name and op == wanted and unit in ("", metric.unit):
        return BudgetItem(text, "metric", number)
    kind = _FORMS.get((name, op, unit))
    if kind is None or (kind in _LESS and match["sign"] != "-") or (kind not in _LESS and match["sign"] == "-"):
        raise UsageError("invalid", Sentence("budget.item", item=repr(text), examples=_EXAMPLES))
    up = metric.direction is Direction.UP
    if kind == "error_change" and up:
        raise UsageError("invalid", Sentence("budget.more_is_better", item=repr(text), name=metric.name))
    if kind == "drop" and not up and metric.unit != "share":
        raise UsageError("invalid", Sentence("budget.no_share", item=repr(text), name=metric.name, unit=metric.unit))
    scale = {"size_change": -0.01, "download_change": -0.01, "drop": 0.01, "error_change": 0.01}.get(kind, 1.0)
    scale = {"KB": 1e3, "MB": 1e6}.get(unit, scale) if kind in ("size_bytes", "download_bytes") else scale
    return BudgetItem(text, kind, number * scale)


def judge(items: Sequence[BudgetItem], measured: Measured) -> list[Verdict]:
    """A verdict per item, in the items' order."""
    return [_judge(item, measured) for item in items]


def _judge(item: BudgetItem, m: Measured) -> Verdict:
    if item.kind == "drop":
        return Verdict(item.text, m.drop.high <= item.limit, m.drop.value, m.drop.low, m.drop.high)
    if item.kind == "error_change":
        base = m.value_before or 1.0
        low, high = m.drop.low / base, m.drop.high / base
        return Verdict(item.text, high <= item.limit, m.drop.value / base, low, high)
    if item.kind == "metric":
        sign = -1.0 if m.metric.direction is Direction.UP else 1.0
        ends = sorted((m.value_before + sign * m.drop.low, m.value_before + sign * m.drop.high))
        met = ends[0] >= item.limit if m.metric.direction is Direction.UP else ends[1] <= item.limit
        return Verdict(item.text, met, m.value, ends[0], ends[1])
    value = {
        "size_change": m.size_bytes / m.size_before - 1,
        "size_bytes": float(m.size_bytes),
        "download_change": m.download_bytes / max(m.download_before, 1) - 1,
        "download_bytes": float(m.download_bytes),
        "speed": m.p50_before / m.p50_ms,
        "p95_ms": m.p95_ms,
        "peak_mb": m.peak_mb,
    }[item.kind]
    return Verdict(item.text, value >= item.limit if item.kind == "speed" else value <= item.limit, value)


def allowed_drop(items: Sequence[BudgetItem], metric: Metric, before: float) -> float | None:
    """The smallest loss of the metric that the items leave room for, in its unit; None when none of them limits it."""
    limits = []
    for item in items:
        if item.kind == "drop":
            limits.append(item.limit)
        elif item.kind == "error_change":
            limits.append(item.limit * (before or 1.0))
        elif item.kind == "metric":
            limits.append(before - item.limit if metric.direction is Direction.UP else item.limit - before)
    return min(limits) if limits else None


def words(verdict: Verdict, item: BudgetItem, measured: Measured) -> str:
    """The verdict as a sentence; where the samples are too few to prove an item, it says so and how many would do."""
    if verdict.met:
        return f"{item.text}: met"
    limit = allowed_drop([item], measured.metric, measured.value_before)
    if limit is None:
        return f"{item.text}: not met, measured {verdict.value:.4g}"
    drop = measured.drop
    if drop.value > limit:
        return f"{item.text}: not met, {drop.samples} samples show a loss of {drop.value:.4g}"
    if limit <= 0:
        return f"{item.text}: not met, it leaves no room for any loss"
    spread = max((drop.high - drop.value) ** 2 * drop.samples, 1e-12)
    wanted = math.ceil(spread / (limit - drop.value) ** 2) if limit > drop.value else None
    more = f"; about {wanted:,} samples would" if wanted else ""
    return (
        f"{item.text}: not enough samples to prove it: {drop.samples} show a loss of {drop.value:.4g}, "
        f"but cannot rule out {drop.high:.4g}{more}"
    )
