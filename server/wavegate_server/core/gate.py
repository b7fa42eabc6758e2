"""The gate after a wave: promote, hold or roll back, with the reason in one sentence and all its inputs.

Order of judgement, first match wins:
 1. hard guards (a device refused or broke, failure budget spent, devices silent, limits of the manifest): roll back at once;
 2. a metric is worse than its margin beyond the confidence radius: roll back, also before the soak is over;
 3. the soak is not over: hold;
 4. a person approved: promote;
 5. nothing to compare with because nothing ran before: promote on the guards alone;
 6. evidence missing: hold. Too few devices or too short a baseline, and the policy wants a person: hold;
 7. every metric proven not worse: promote; else what the policy says about a soak without alarm.

`decide` is a pure function of `GateEvidence`, which is stored as JSON: `replay(dump(e)) == decide(e)`, bit for bit. Rolling back
never depends on a person; promoting on thin evidence does, unless the policy says otherwise. Not here: how the evidence is
made (`evidence`, `guards`), what is done about it (`rollout`).

Source: DESIGN section 8 (gate).
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from wavegate_server.core import confidence, wording
from wavegate_server.core.evidence import MetricEvidence
from wavegate_server.core.policy import MIN_BASELINE_BLOCKS
from wavegate_server.core.verdict import Decision, GateEvidence, Guards, MetricResult, Rules, Verdict
from wavegate_shared.metrics import Direction

__all__ = ["FEW", "decide", "dump", "judge", "replay"]

FEW = 5
"""Fewer updated devices than this, and a block's mean is not near a normal distribution."""
_FEW_MIN_BLOCKS = 3
_NO_CONTROL_FACTOR = 2.0
"""Without untouched devices, what happens to the whole fleet looks like the version's doing: half as sensitive."""
_FLOOR_SHARE = 0.5
"""Of the variance that sampling alone explains: enough to catch a baseline without events, below what a measured one shows."""
_SLO_MIN_REQUESTS = 100
_HISTOGRAM_ERROR = 1.02
_NEVER = "never measured on these devices"
_SURE_CODES = frozenset({"golden_failed", "broken"})
"""One device is enough: the same signed samples fail on each, and a device that cannot serve at all is the worst case."""


def decide(evidence: GateEvidence) -> Decision:
    """The decision; the same evidence always gives the same one."""
    results = [] if evidence.telemetry is None else [judge(m, evidence.rules) for m in evidence.telemetry.metrics]
    caveats = wording.caveats(evidence, results)

    def say(verdict: Verdict, sentence: str) -> Decision:
        return Decision(verdict=verdict, sentence=sentence, results=results, caveats=caveats)

    alarm = _guard_alarm(evidence)
    if alarm:
        return say(Verdict.ROLLBACK, f"{alarm}: rolled back")
    worse = [result for result in results if result.verdict is Verdict.ROLLBACK]
    if worse and evidence.telemetry is not None:
        return say(Verdict.ROLLBACK, f"{wording.worse(worse, evidence.telemetry)}: rolled back")
    return say(*_without_alarm(evidence, results, caveats))


def judge(metric: MetricEvidence, rules: Rules) -> MetricResult:
    """The outcome of one metric. Inconclusive whenever the evidence is missing, malformed or cannot be told from noise."""
    thin = len(metric.shifts) < FEW or len(metric.baseline) < MIN_BASELINE_BLOCKS
    factor = max(rules.wide_factor if thin else 1.0, 1.0 if metric.controls else _NO_CONTROL_FACTOR)
    margin = metric.spec.margin * factor
    blocks = len(metric.blocks)
    mean = math.fsum(metric.blocks) / blocks if blocks else None
    reach: float | None = None
    verdict, why = Verdict.INCONCLUSIVE, _unusable(metric)
    if mean is not None and not why:
        spread = _spread(metric)
        alpha = rules.alpha / rules.comparisons
        reach = confidence.radius(spread, blocks=blocks, baseline_blocks=len(metric.baseline), alpha=alpha)
        verdict = _verdict(mean, reach, margin, blocks, _FEW_MIN_BLOCKS if thin else 1, rules.min_blocks)
    return MetricResult(
        name=metric.spec.name,
        label=metric.spec.label,
        unit=metric.spec.unit,
        direction=metric.spec.direction,
        verdict=verdict,
        why=why,
        mean=mean,
        radius=reach if reach is not None and math.isfinite(reach) else None,
        margin=margin,
        blocks=blocks,
        baseline_blocks=len(metric.baseline),
        devices=len(metric.shifts),
        worse=sum(_loss(metric, shift.before, shift.after) > metric.spec.margin for shift in metric.shifts),
        controls=metric.controls,
        before=_average([shift.before for shift in metric.shifts]),
        after=_average([shift.after for shift in metric.shifts]),
    )


def dump(evidence: GateEvidence, decision: Decision) -> dict[str, Any]:
    """Evidence and decision as JSON values, as stored and shown."""
    return {"inputs": msgspec.to_builtins(evidence), "decision": msgspec.to_builtins(decision)}


def replay(stored: Mapping[str, Any]) -> Decision:
    """Decide again from what `dump` wrote. Raises ValueError when the inputs are malformed: nothing follows from them."""
    try:
        return decide(msgspec.convert(stored["inputs"], GateEvidence))
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise ValueError(f"stored evidence cannot be read: {error}") from error


def _verdict(mean: float, reach: float, margin: float, blocks: int, least_alarm: int, least_promote: int) -> Verdict:
    if mean - reach > margin and blocks >= least_alarm:
        return Verdict.ROLLBACK
    if mean + reach < margin and blocks >= least_promote:
        return Verdict.PROMOTE
    return Verdict.INCONCLUSIVE


def _spread(metric: MetricEvidence) -> float:
    return max(confidence.variance(metric.baseline), _FLOOR_SHARE * metric.floor)


def _unusable(metric: MetricEvidence) -> str:
    if not metric.measured:
        return _NEVER
    if len(metric.baseline) < 3:
        return "no baseline from before the wave"
    if not metric.blocks:
        return "nothing measured since the swap"
    if not all(math.isfinite(value) for value in (*metric.baseline, *metric.blocks, metric.floor)):
        return "malformed values"
    if _spread(metric) <= 0.0:
        return "the baseline never varied, so nothing tells how far chance reaches"
    return ""


def _without_alarm(evidence: GateEvidence, results: list[MetricResult], caveats: list[str]) -> tuple[Verdict, str]:
    updated = evidence.telemetry.updated if evidence.telemetry else 0
    on = wording.devices(updated)
    if not evidence.soak_over:
        return Verdict.HOLD, f"watching {on}: no alarm so far"
    if evidence.approved_by:
        return Verdict.PROMOTE, f"approved by {evidence.approved_by}: promoted"
    if updated == 0:
        return Verdict.HOLD, "no device of this wave serves the new version: held"
    if evidence.first_install:
        return (
            Verdict.PROMOTE,
            f"first version on {on}, nothing to compare with, all proven by their own checks: promoted",
        )
    missing = _missing(evidence.rules, results)
    if missing:
        return Verdict.HOLD, f"evidence is missing ({missing}): held"
    judged = [result for result in results if not result.why]
    thin = any(r.devices < FEW or r.baseline_blocks < MIN_BASELINE_BLOCKS for r in judged)
    note = f" ({'; '.join(caveats)})" if caveats else ""
    if thin and evidence.rules.few_canaries == "human":
        return Verdict.HOLD, f"a person must approve{note}: held"
    if all(result.verdict is Verdict.PROMOTE for result in judged):
        return Verdict.PROMOTE, f"proven not worse on {on}{note}: promoted"
    if evidence.rules.at_soak_end == "promote":
        return Verdict.PROMOTE, f"no alarm on {on} through the whole soak{note}: promoted"
    return Verdict.HOLD, f"not proven equal on {on} yet{note}: held"


def _missing(rules: Rules, results: list[MetricResult]) -> str:
    """What must be there and is not: a required metric, or one that devices measured before and stopped measuring."""
    required = set(rules.required_metrics)
    gaps = [r for r in results if r.why and (r.name in required or r.why != _NEVER)]
    absent = required - {result.name for result in results}
    return "; ".join([f"{r.label}: {r.why}" for r in gaps] + sorted(absent))


def _guard_alarm(evidence: GateEvidence) -> str:
    guards = evidence.guards
    sure = [failure for failure in guards.failed if failure.code in _SURE_CODES]
    if sure:
        return wording.refused(sure[0], evidence)
    if len(guards.failed) > guards.budget:
        return wording.failures(guards, evidence)
    if len(guards.silent) > guards.budget and not _outage(guards):
        return f"{wording.devices(len(guards.silent))} of {guards.touched} went silent after the swap"
    return _limit_broken(evidence)


def _outage(guards: Guards) -> bool:
    """Whether the silence looks like ours: untouched devices are as silent, or there are none and everybody is."""
    if guards.controls:
        return 2 * guards.silent_controls >= guards.controls
    return guards.touched > 1 and len(guards.silent) >= guards.touched


def _limit_broken(evidence: GateEvidence) -> str:
    slo = evidence.rules.slo
    if evidence.telemetry is None or evidence.telemetry.live.requests < _SLO_MIN_REQUESTS:
        return ""
    live = evidence.telemetry.live
    if slo.p95_ms is not None and live.p95_ms is not None and live.p95_ms > slo.p95_ms * _HISTOGRAM_ERROR:
        return f"p95 {live.p95_ms:.1f} ms is over the version's own limit of {slo.p95_ms:.1f} ms"
    share = live.errors / live.requests
    if slo.error_ceiling is not None and share > slo.error_ceiling:
        return f"{wording.amount(share, 'share')} failed requests, over the version's own limit"
    memory = live.peak_memory_mb
    if slo.peak_memory_mb is not None and memory is not None and memory > slo.peak_memory_mb:
        return f"{memory:.0f} MB of memory, over the version's own limit of {slo.peak_memory_mb:.0f} MB"
    return ""


def _loss(metric: MetricEvidence, before: float, after: float) -> float:
    return before - after if metric.spec.direction is Direction.UP else after - before


def _average(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
