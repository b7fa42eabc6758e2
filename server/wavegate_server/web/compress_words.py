"""What a model's page says about compression jobs, in the reader's language. Pure: rows come in, text goes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wavegate_server.adapters.database.tables import CompressJob
from wavegate_server.core.compress.budget import BudgetItem, allowed_drop, parse_budget
from wavegate_server.web import formats, pareto
from wavegate_server.web.i18n import Translate
from wavegate_server.web.job_result import Candidate, ItemVerdict, JobResult, Progress, read_progress, read_result
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
    """A candidate's row beside the chart. `number` is None for one that was never measured; `said` is `reason` as code and parameters."""

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
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the page shows it. `share` is the time used, in per cent of the job's; `result` None: none yet."""

    job: CompressJob
    open: bool
    share: float
    progress: Progress
    result: JobResult | None
    charts: tuple[pareto.Chart, pareto.Chart] | None
    metric: Metric

    @property
    def comparison(self) -> tuple[Comparison, ...]:
        """The before/after table of the chosen candidate."""
        return self.result.comparison if self.result else ()


def job_view(job: CompressJob, metric: Metric) -> JobView:
    """A job with its charts. `metric` is the model's."""
    result = read_result(job.result)
    first = result.original if result else None
    before = first.metric if first else None
    allowed = None if before is None else allowed_drop(_items(job.budget, metric), metric, before)
    return JobView(
        job=job,
        open=job.state in _OPEN,
        share=round(min(100.0, 100 * job.used_s / job.time_s), 1) if job.time_s > 0 else 0.0,
        progress=read_progress(job.progress),
        result=result,
        charts=pareto.charts(result, allowed) if result else None,
        metric=metric,
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
        result = view.result
        if result is None or view.job.state in ("failed", "cancelled"):
            return ""
        if result.chosen is None:
            missed = [verdict.item for verdict in result.verdicts if not verdict.met]
            return self.t("job.lead.not_met", items=", ".join(missed) or view.job.budget)
        if result.chosen == "original":
            return self.t("job.lead.original")
        best, first = result.row(result.chosen), result.original
        if best is None or first is None or not (best.p50_ms and best.size_bytes and first.size_bytes and first.p50_ms):
            return self.t("job.lead.met", name=result.chosen)
        return self.t(
            "job.lead.met_by",
            name=result.chosen,
            size=formats.percent(1 - best.size_bytes / first.size_bytes),
            speed=f"{first.p50_ms / best.p50_ms:.2f}",
            drop=self._loss(best.drop_high_pt or best.drop_pt, view.metric),
        )

    def verdicts(self, view: JobView) -> list[Said]:
        """The verdict on each budget item, with its interval where it has one."""
        kinds = {item.text: item for item in _items(view.job.budget, view.metric)}
        verdicts = view.result.verdicts if view.result else ()
        return [self._verdict(row, kinds.get(row.item), view.metric) for row in verdicts]

    def rows(self, view: JobView) -> list[Row]:
        """The table twin of the charts."""
        if view.result is None:
            return []
        return [
            self._row(number, row, view.result, view.metric) for number, row in pareto.numbered(view.result.candidates)
        ]

    def _row(self, number: int | None, row: Candidate, result: JobResult, metric: Metric) -> Row:
        kind = "original" if row.is_original else "good" if row.offered else "missed"
        kind = "chosen" if row.recipe == result.chosen else kind
        none, first, said = formats.NONE, result.original, row.reason_said or {}
        if number is None:
            return Row(None, row.recipe, kind, False, none, "", none, "", none, none, none, row.reason or "", said)
        smaller = faster = ""
        if first is not None and first is not row and first.size_bytes and first.p50_ms and row.p50_ms:
            smaller = formats.percent((row.size_bytes or 0.0) / first.size_bytes - 1)
            faster = f"{first.p50_ms / row.p50_ms:.2f} ×"
        return Row(
            number=number,
            name=row.recipe,
            kind=kind,
            front=bool(row.pareto),
            size=formats.size(row.size_bytes),
            smaller=smaller.replace("-", "−"),
            latency=formats.milliseconds(row.p50_ms),
            faster=faster,
            drop=none if row.is_original else self._loss(row.drop_pt, metric),
            at_most=none if row.is_original else self._loss(row.drop_high_pt, metric),
            agreement=none if row.is_original else formats.percent(row.agreement, 2),
            reason=row.reason or "",
            said=said,
        )

    def _loss(self, points: float | None, metric: Metric) -> str:
        if points is None:
            return formats.NONE
        if metric.unit == "share":
            return f"{points:.2f} pt".replace("-", "−")
        return f"{formats.signed(points / 100)} {metric.unit}"

    def _verdict(self, row: ItemVerdict, item: BudgetItem | None, metric: Metric) -> Said:
        if row.value is None:
            return Said(row.item, "met" if row.met else "missed", formats.NONE)
        ends = None
        if row.low is not None and row.high is not None:
            ends = (_amount(row.low, item, metric), _amount(row.high, item, metric))
        near = ends is not None and item is not None and _point_is_within(row.value, item, metric)
        state = "met" if row.met else "unproven" if near else "missed"
        key = f"job.verdict.{state}" + ("_interval" if ends else "")
        low, high = ends or ("", "")
        return Said(row.item, state, self.t(key, value=_amount(row.value, item, metric), low=low, high=high))


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
