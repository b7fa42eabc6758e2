"""What a model's page says about compression jobs, in the reader's language. Pure: rows come in, text goes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wavegate_server.adapters.tables import CompressJob
from wavegate_server.core.budget import BudgetItem, allowed_drop, parse_budget
from wavegate_server.web import formats, pareto
from wavegate_server.web.i18n import Translate
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Comparison
from wavegate_shared.metrics import Metric

__all__ = ["CompressWords", "JobView", "Row", "Said", "job_view"]

_OPEN = ("queued", "running")
_METRIC_ITEMS = ("drop", "error_change", "metric")


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict on one budget item. Attributes: state (met, missed, unproven), text."""

    item: str
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate's row beside the chart. `number` is None for one that was never measured."""

    number: int | None
    name: str
    kind: str
    front: bool
    size: str
    smaller: str
    latency: str
    faster: str
    drop: str
    at_most: str
    agreement: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the page shows it. `share` is the time used, in per cent of the job's."""

    job: CompressJob
    open: bool
    share: float
    charts: tuple[pareto.Chart, pareto.Chart] | None
    comparison: tuple[Comparison, ...]
    metric: Metric


def job_view(job: CompressJob, metric: Metric) -> JobView:
    """A job with its charts. `metric` is the model's."""
    result = job.result
    items = _items(job.budget, metric)
    before = next((row.get("metric") for row in result.get("candidates", []) if row["recipe"] == "original"), None)
    allowed = None if before is None else allowed_drop(items, metric, float(before))
    return JobView(
        job,
        job.state in _OPEN,
        round(min(100.0, 100 * job.used_s / job.time_s), 1),
        pareto.charts(result, allowed) if result else None,
        tuple(Comparison(**row) for row in result.get("comparison", [])),
        metric,
    )


@dataclass(frozen=True, slots=True)
class CompressWords:
    """The computed texts of one language."""

    t: Translate

    def stage(self, text: str) -> str:
        """A step's name; one that no catalogue knows shows as it is."""
        try:
            return self.t(f"stage.{text}")
        except KeyError:
            return text

    def lead(self, view: JobView) -> str:
        """The one sentence a finished job begins with; empty where its own reason says it."""
        result, chosen = view.job.result, view.job.result.get("chosen")
        if not result or view.job.state in ("failed", "cancelled"):
            return ""
        if chosen is None:
            missed = [verdict["item"] for verdict in result["verdicts"] if not verdict["met"]]
            return self.t("job.lead.not_met", items=", ".join(missed) or view.job.budget)
        if chosen == "original":
            return self.t("job.lead.original")
        rows = {row["recipe"]: row for row in result["candidates"]}
        best, first = rows.get(chosen), rows.get("original")
        if best is None or first is None or not (best["p50_ms"] and first["size_bytes"]):
            return self.t("job.lead.met", name=chosen)
        return self.t(
            "job.lead.met_by",
            name=chosen,
            size=formats.percent(1 - best["size_bytes"] / first["size_bytes"]),
            speed=f"{first['p50_ms'] / best['p50_ms']:.2f}",
            drop=self._loss(best.get("drop_high_pt") or best.get("drop_pt"), view.metric),
        )

    def verdicts(self, view: JobView) -> list[Said]:
        """The verdict on each budget item, with its interval where it has one."""
        kinds = {item.text: item for item in _items(view.job.budget, view.metric)}
        return [self._verdict(row, kinds.get(row["item"]), view.metric) for row in view.job.result.get("verdicts", [])]

    def rows(self, view: JobView) -> list[Row]:
        """The table twin of the charts."""
        result = view.job.result
        first = next((row for row in result["candidates"] if row["recipe"] == "original"), None)
        return [self._row(number, row, first, view) for number, row in pareto.numbered(result["candidates"])]

    def _row(self, number: int | None, row: Mapping[str, Any], first: Mapping[str, Any] | None, view: JobView) -> Row:
        kind = "original" if row["recipe"] == "original" else "good" if row["offered"] else "missed"
        kind = "chosen" if row["recipe"] == view.job.result["chosen"] else kind
        reason = str(row.get("reason") or "")
        if number is None:
            none = formats.NONE
            return Row(None, row["recipe"], kind, False, none, "", none, "", none, none, none, reason)
        known = first is not None and first is not row and first.get("size_bytes") and row["p50_ms"]
        smaller = formats.percent(row["size_bytes"] / first["size_bytes"] - 1) if known and first else ""
        faster = f"{first['p50_ms'] / row['p50_ms']:.2f} ×" if known and first else ""
        same = row["recipe"] == "original"
        return Row(
            number=number,
            name=row["recipe"],
            kind=kind,
            front=bool(row.get("pareto")),
            size=formats.size(row["size_bytes"]),
            smaller=smaller.replace("-", "−"),
            latency=formats.milliseconds(row["p50_ms"]),
            faster=faster,
            drop=formats.NONE if same else self._loss(row.get("drop_pt"), view.metric),
            at_most=formats.NONE if same else self._loss(row.get("drop_high_pt"), view.metric),
            agreement=formats.NONE if same else formats.percent(row.get("agreement"), 2),
            reason=reason,
        )

    def _loss(self, points: float | None, metric: Metric) -> str:
        if points is None:
            return formats.NONE
        if metric.unit == "share":
            return f"{points:.2f} pt".replace("-", "−")
        return f"{formats.signed(points / 100)} {metric.unit}"

    def _verdict(self, row: Mapping[str, Any], item: BudgetItem | None, metric: Metric) -> Said:
        low, high = row.get("low"), row.get("high")
        measured = _amount(row["value"], item, metric)
        ends = None if low is None or high is None else (_amount(low, item, metric), _amount(high, item, metric))
        unproven = (
            not row["met"] and ends is not None and item is not None and _point_is_within(row["value"], item, metric)
        )
        state = "met" if row["met"] else "unproven" if unproven else "missed"
        key = f"job.verdict.{state}" + ("_interval" if ends else "")
        low_text, high_text = ends or ("", "")
        return Said(row["item"], state, self.t(key, value=measured, low=low_text, high=high_text))


def _items(budget: str, metric: Metric) -> list[BudgetItem]:
    try:
        return parse_budget(budget, metric)
    except UsageError:
        return []  # of a release that knew other items


def _point_is_within(value: float, item: BudgetItem, metric: Metric) -> bool:
    """Whether the measured value alone would do: then it is the samples that are too few."""
    if item.kind not in _METRIC_ITEMS:
        return False
    up = item.kind == "metric" and metric.direction == "up"
    return value >= item.limit if up else value <= item.limit


def _amount(value: float, item: BudgetItem | None, metric: Metric) -> str:
    """A verdict's value in its item's unit."""
    kind = item.kind if item else ""
    if kind in ("size_change", "download_change", "error_change"):
        return f"{100 * value:+.1f} %".replace("-", "−")
    if kind in ("size_bytes", "download_bytes"):
        return formats.size(value)
    if kind == "speed":
        return f"{value:.2f} ×"
    if kind == "p95_ms":
        return formats.milliseconds(value)
    if kind == "peak_mb":
        return f"{formats.number(value)} MB"
    if kind == "drop":
        return f"{100 * value:.2f} pt".replace("-", "−")
    if kind == "metric":
        return formats.percent(value, 2) if metric.unit == "share" else formats.metric(value, metric)
    return formats.number(value)
