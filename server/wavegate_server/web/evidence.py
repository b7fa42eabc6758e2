"""A stored gate decision as the rollout page shows it: the sentence first, then one picture and row per metric. Pure.

Evidence that cannot be read (an older server's, a damaged row) shows without figures; it never breaks the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from wavegate_server.core.gate.verdict import Decision, Failure, GateEvidence, MetricResult
from wavegate_server.web.pictures import Interval, interval
from wavegate_shared.metrics import Direction, Metric

__all__ = ["GateView", "MetricView", "gate_view"]


@dataclass(frozen=True, slots=True)
class MetricView:
    """One metric: the gate's own result, its picture (None: nothing to draw), and its metric for formatting."""

    result: MetricResult
    picture: Interval | None
    metric: Metric
    shifts: tuple[tuple[str, float, float, int], ...] = ()

    @property
    def is_share(self) -> bool:
        """Whether differences are percentage points."""
        return self.result.unit == "share"


@dataclass(frozen=True, slots=True)
class GateView:
    """What the gate saw beside its sentence; `readable` False when only the sentence is left.

    `caveats` are English texts, each with its code and parameters (empty: an older release's).
    """

    readable: bool
    metrics: tuple[MetricView, ...] = ()
    caveats: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    failed: tuple[Failure, ...] = ()
    silent: tuple[str, ...] = ()
    updated: int = 0
    requests: int = 0
    errors: int = 0


def gate_view(stored: Mapping[str, Any]) -> GateView:
    """Read what `core.gate.decision.dump` wrote."""
    try:
        decision = msgspec.convert(stored["decision"], Decision)
        inputs = msgspec.convert(stored["inputs"], GateEvidence)
    except (msgspec.ValidationError, KeyError, TypeError):
        return GateView(readable=False)
    telemetry = inputs.telemetry
    return GateView(
        readable=True,
        metrics=tuple(_metric(result, inputs) for result in decision.results),
        caveats=_caveats(decision),
        failed=tuple(inputs.guards.failed),
        silent=tuple(inputs.guards.silent),
        updated=telemetry.updated if telemetry else 0,
        requests=telemetry.live.requests if telemetry else 0,
        errors=telemetry.live.errors if telemetry else 0,
    )


def _caveats(decision: Decision) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    said: list[Mapping[str, Any]] = [*decision.caveats_said, *({} for _ in decision.caveats)]
    return tuple(zip(decision.caveats, said, strict=False))


def _metric(result: MetricResult, inputs: GateEvidence) -> MetricView:
    drawn = result.mean is not None and result.radius is not None
    shifts = [m.shifts for m in inputs.telemetry.metrics if m.spec.name == result.name] if inputs.telemetry else []
    return MetricView(
        result=result,
        picture=interval(result.mean or 0.0, result.radius or 0.0, result.margin) if drawn else None,
        metric=Metric(result.name, result.unit, Direction(result.direction)),
        shifts=tuple((s.device, s.before, s.after, s.samples) for s in (shifts[0] if shifts else [])),
    )
