"""The gate's plain sentences: what an operator reads before any statistics. Their texts are in `english`, by code."""

from collections.abc import Sequence

from wavegate_server.core.gate.evidence import ERRORS, P99, Telemetry
from wavegate_server.core.gate.policy import MIN_BASELINE_BLOCKS
from wavegate_server.core.gate.verdict import Failure, GateEvidence, Guards, MetricResult
from wavegate_server.core.sentences import Sentence
from wavegate_shared.metrics import Direction

__all__ = ["amount", "caveats", "failures", "refused", "worse"]

_SHORT = {P99: "slow", ERRORS: "failing"}
_URGENT_FIRST = (ERRORS, P99)
_REFUSAL = {"golden_failed": "alarm.refused", "broken": "alarm.broken"}


def amount(value: float, unit: str) -> str:
    """A value with its unit; shares as per cent."""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g} {unit}"


def worse(results: Sequence[MetricResult], telemetry: Telemetry) -> Sentence:
    """Why metrics that got worse call for a rollback; the model's own score leads, since it says what users saw."""
    lead = min(results, key=lambda result: _URGENT_FIRST.index(result.name) if result.name in _URGENT_FIRST else -1)
    return Sentence(
        "alarm.fell" if lead.direction is Direction.UP else "alarm.rose",
        where=_where(lead, telemetry),
        metric=lead.name,
        before=amount(lead.before or 0.0, lead.unit),
        after=amount(lead.after or 0.0, lead.unit),
        margin=f"{100 * lead.margin:.1f} pt" if lead.unit == "share" else amount(lead.margin, lead.unit),
        also=[_SHORT.get(result.name, "wrong") for result in results if result is not lead],
    )


def refused(failure: Failure, evidence: GateEvidence) -> Sentence:
    """One device that said no, and why."""
    cause = Sentence("cause.code", code=failure.code)
    if failure.detail:
        cause = Sentence("cause.detail", code=failure.code, detail=str(failure.detail))
    code = _REFUSAL.get(failure.code, "alarm.failed")
    return Sentence(code, device=failure.device, version=evidence.version, cause=cause)


def failures(guards: Guards, evidence: GateEvidence) -> Sentence:
    """More devices failed than the budget allows."""
    if len(guards.failed) == 1:
        return refused(guards.failed[0], evidence)
    codes = sorted({failure.code for failure in guards.failed})
    return Sentence("alarm.failures", failed=len(guards.failed), total=guards.size, budget=guards.budget, codes=codes)


def caveats(evidence: GateEvidence, results: Sequence[MetricResult]) -> list[Sentence]:
    """Every way in which the evidence is thinner than the method wants."""
    if evidence.telemetry is None or evidence.first_install:
        return []
    notes: list[Sentence] = []
    judged = [result for result in results if not result.why]
    fewest = min((result.devices for result in judged), default=0)
    shortest = min((result.baseline_blocks for result in judged), default=0)
    factor = f"{evidence.rules.wide_factor:g}"
    if judged and fewest < 5:
        notes.append(Sentence("caveat.few", devices=fewest, factor=factor))
    elif judged and shortest < MIN_BASELINE_BLOCKS:
        notes.append(Sentence("caveat.short", blocks=shortest, factor=factor))
    if judged and all(result.controls == 0 for result in judged):
        notes.append(Sentence("caveat.no_controls"))
    if evidence.telemetry.idle and evidence.soak_over:
        notes.append(Sentence("caveat.idle", idle=evidence.telemetry.idle, devices=evidence.telemetry.updated))
    notes.extend(
        Sentence("caveat.not_judged", metric=result.name, why=Sentence(result.why_code))
        for result in results
        if result.why
    )
    return notes


def _where(result: MetricResult, telemetry: Telemetry) -> Sentence:
    how = _SHORT.get(result.name, "wrong")
    if result.devices == 1:
        of_metric = next(metric for metric in telemetry.metrics if metric.spec.name == result.name)
        return Sentence("where.device", device=of_metric.shifts[0].device)
    if result.worse == 0:
        return Sentence("where.all", how=how, devices=result.devices)
    return Sentence("where.some", how=how, worse=result.worse, devices=result.devices)
