"""The gate's plain sentences: what an operator reads before any statistics."""

from collections.abc import Sequence

from wavegate_server.core.evidence import ERRORS, P99, Telemetry
from wavegate_server.core.policy import MIN_BASELINE_BLOCKS
from wavegate_server.core.verdict import Failure, GateEvidence, Guards, MetricResult
from wavegate_shared.metrics import Direction

__all__ = ["amount", "caveats", "devices", "failures", "refused", "worse"]

_SHORT = {P99: "slow", ERRORS: "failing"}
_URGENT_FIRST = (ERRORS, P99)


def amount(value: float, unit: str) -> str:
    """A value with its unit; shares as per cent."""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g} {unit}"


def devices(count: int) -> str:
    """`1 device`, `7 devices`."""
    return f"{count} device" if count == 1 else f"{count} devices"


def worse(results: Sequence[MetricResult], telemetry: Telemetry) -> str:
    """Why metrics that got worse call for a rollback; the model's own score leads, since it says what users saw."""
    lead = min(results, key=lambda result: _URGENT_FIRST.index(result.name) if result.name in _URGENT_FIRST else -1)
    others = [result for result in results if result is not lead]
    margin = f"{100 * lead.margin:.1f} pt" if lead.unit == "share" else amount(lead.margin, lead.unit)
    verb = "fell" if lead.direction is Direction.UP else "rose"
    change = f"{lead.label} {verb} {amount(lead.before or 0.0, lead.unit)} -> {amount(lead.after or 0.0, lead.unit)}"
    also = "".join(f", also {_SHORT.get(result.name, 'wrong')}" for result in others)
    return f"{_where(lead, telemetry)}: {change} (margin {margin}){also}"


def refused(failure: Failure, evidence: GateEvidence) -> str:
    """One device that said no, and why."""
    what = {"golden_failed": "refused", "broken": "is broken after"}.get(failure.code, "failed")
    why = f"{failure.code}, {failure.detail}" if failure.detail else failure.code
    return f"{failure.device} {what} version {evidence.version} ({why})"


def failures(guards: Guards, evidence: GateEvidence) -> str:
    """More devices failed than the budget allows."""
    first = guards.failed[0]
    if len(guards.failed) == 1:
        return refused(first, evidence)
    codes = sorted({failure.code for failure in guards.failed})
    return f"failed on {len(guards.failed)} of {guards.size} devices, {guards.budget} allowed ({', '.join(codes)})"


def caveats(evidence: GateEvidence, results: Sequence[MetricResult]) -> list[str]:
    """Every way in which the evidence is thinner than the method wants, in words."""
    if evidence.telemetry is None or evidence.first_install:
        return []
    notes = []
    judged = [result for result in results if not result.why]
    fewest = min((result.devices for result in judged), default=0)
    shortest = min((result.baseline_blocks for result in judged), default=0)
    if judged and fewest < 5:
        notes.append(f"only {devices(fewest)} to judge by, margin x {evidence.rules.wide_factor:g}")
    elif judged and shortest < MIN_BASELINE_BLOCKS:
        notes.append(f"baseline of only {shortest} blocks, margin x {evidence.rules.wide_factor:g}")
    if judged and all(result.controls == 0 for result in judged):
        notes.append("no untouched devices left, compared with their own past")
    notes.extend(f"{result.label} not judged: {result.why}" for result in results if result.why)
    return notes


def _where(result: MetricResult, telemetry: Telemetry) -> str:
    word = _SHORT.get(result.name, "wrong")
    if result.devices == 1:
        found = next(metric for metric in telemetry.metrics if metric.spec.name == result.name)
        return found.shifts[0].device
    if result.worse == 0:
        return f"{word} over all of {devices(result.devices)}"
    return f"{word} on {result.worse} of {devices(result.devices)}"
