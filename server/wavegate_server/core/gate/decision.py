"""The gate after a wave: promote, hold or roll back, with the reason in one sentence and all its inputs.

How to think of this: two mistakes are possible, and they do not weigh the same. Rolling a good version back costs trust in the
gate, so a metric must be worse beyond doubt, however often one looks (a confidence sequence holds at every look; a threshold or
a test repeated every minute does not). Letting a bad version through costs users, so what can be seen at once (a crash, a failed
golden set, silence) needs no statistics, and missing evidence is never good news: it holds.

Order of judgement, first match wins:
 1. hard guards (a device refused or broke, failure budget spent, devices silent, limits of the manifest): roll back at once;
 2. a metric is worse than its margin beyond the confidence radius: roll back, also before the soak is over;
 3. the soak is not over: hold;
 4. a person approved: promote;
 5. devices without live traffic, and the policy wants a person or live requests: hold; nobody had any: promote on the guards;
 6. nothing to compare with because nothing ran before: promote on the guards alone;
 7. evidence missing: hold. Too few devices or too short a baseline, and the policy wants a person: hold;
 8. every metric proven not worse: promote; else what the policy says about a soak without alarm.

`decide` is a pure function of `GateEvidence`, which is stored as JSON: `replay(dump(e)) == decide(e)`, bit for bit. Rolling back
never depends on a person; promoting on thin evidence does, unless the policy says otherwise. Not here: how the evidence is
made (`evidence`, `guards`), what is done about it (`rollout`).

Source: docs/adr/0005-gate-by-confidence-sequence.md.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from wavegate_server.core.gate import confidence, wording
from wavegate_server.core.gate.evidence import MetricEvidence
from wavegate_server.core.gate.policy import MIN_BASELINE_BLOCKS
from wavegate_server.core.gate.verdict import Decision, GateEvidence, Guards, MetricResult, Rules, Verdict
from wavegate_server.core.sentences import Sentence
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
_NEVER = "why.never"
_EXCUSED = frozenset({_NEVER, "why.no_baseline"})
"""Where some devices had no traffic, the others may have had none before the wave."""
_SURE_CODES = frozenset({"golden_failed", "broken"})
"""One device is enough: the same signed samples fail on each, and a device that cannot serve at all is the worst case."""


def decide(evidence: GateEvidence) -> Decision:
    """The decision; the same evidence always gives the same one."""
    results = [] if evidence.telemetry is None else [judge(m, evidence.rules) for m in evidence.telemetry.metrics]
    caveats = wording.caveats(evidence, results)

    def say(verdict: Verdict, sentence: Sentence) -> Decision:
        return Decision(
            verdict=verdict,
            sentence=str(sentence),
            results=results,
            caveats=[str(caveat) for caveat in caveats],
            said=sentence.as_json(),
            caveats_said=[caveat.as_json() for caveat in caveats],
        )

    alarm = _guard_alarm(evidence)
    if alarm:
        return say(Verdict.ROLLBACK, Sentence("gate.alarm", alarm=alarm))
    worse = [result for result in results if result.verdict is Verdict.ROLLBACK]
    if worse and evidence.telemetry is not None:
        return say(Verdict.ROLLBACK, Sentence("gate.alarm", alarm=wording.worse(worse, evidence.telemetry)))
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
    if mean is not None and why is None:
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
        why=str(why or ""),
        why_code=why.code if why else "",
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


def _unusable(metric: MetricEvidence) -> Sentence | None:
    if not metric.measured:
        return Sentence(_NEVER)
    if len(metric.baseline) < 3:
        return Sentence("why.no_baseline")
    if not metric.blocks:
        return Sentence("why.nothing_since")
    if not all(math.isfinite(value) for value in (*metric.baseline, *metric.blocks, metric.floor)):
        return Sentence("why.malformed")
    return Sentence("why.flat") if _spread(metric) <= 0.0 else None


def _watching(evidence: GateEvidence, results: list[MetricResult], updated: int) -> Sentence:
    """What is waited for: "no alarm" alone would hide that nothing could raise one."""
    waiting = evidence.waiting
    if waiting is not None and not evidence.soak_ends:
        return Sentence(
            "gate.waits_own" if waiting.own else "gate.waits_live",
            requests=waiting.requests,
            devices=waiting.devices,
            fewest=waiting.fewest,
            time=waiting.until,
        )
    if updated == 0:
        return Sentence("gate.not_begun")
    if not evidence.soak_ends:
        return Sentence("gate.settling", devices=updated)
    blind = bool(results) and all(result.why for result in results)
    if blind and not evidence.first_install:
        gaps = [Sentence("gap.metric", metric=result.name, why=Sentence(result.why_code)) for result in results]
        return Sentence("gate.blind", devices=updated, gaps=gaps, time=evidence.soak_ends)
    return Sentence("gate.watching_until", devices=updated, time=evidence.soak_ends)


def _without_alarm(
    evidence: GateEvidence, results: list[MetricResult], caveats: list[Sentence]
) -> tuple[Verdict, Sentence]:
    updated = evidence.telemetry.updated if evidence.telemetry else 0
    if not evidence.soak_over:
        return Verdict.HOLD, _watching(evidence, results, updated)
    if evidence.approved_by:
        return Verdict.PROMOTE, Sentence("gate.approved", name=evidence.approved_by)
    if updated == 0:
        return Verdict.HOLD, Sentence("gate.nobody")
    idle = evidence.telemetry.idle if evidence.telemetry else 0
    if idle and (decided := _idle_wave(evidence, idle, updated)):
        return decided
    if evidence.first_install:
        return Verdict.PROMOTE, Sentence("gate.first_install", devices=updated)
    gaps = _missing(evidence.rules, results, excused=_EXCUSED if idle else frozenset())
    if gaps:
        return Verdict.HOLD, Sentence("gate.missing", gaps=gaps)
    judged = [result for result in results if not result.why]
    carried = idle > 0 and updated >= FEW
    thin = any((r.devices < FEW and not carried) or r.baseline_blocks < MIN_BASELINE_BLOCKS for r in judged)
    if thin and evidence.rules.few_canaries == "human":
        return Verdict.HOLD, Sentence("gate.needs_person", caveats=caveats)
    if all(result.verdict is Verdict.PROMOTE for result in judged) and (judged or not idle):
        return Verdict.PROMOTE, Sentence("gate.not_worse", devices=updated, caveats=caveats)
    if evidence.rules.at_soak_end == "promote":
        return Verdict.PROMOTE, Sentence("gate.no_alarm", devices=updated, caveats=caveats)
    return Verdict.HOLD, Sentence("gate.not_proven", devices=updated, caveats=caveats)


def _idle_wave(evidence: GateEvidence, idle: int, updated: int) -> tuple[Verdict, Sentence] | None:
    """What the policy says about devices without live traffic; None where the devices that had some decide."""
    policy, nobody = evidence.rules.idle_wave, idle == updated
    if policy == "hold":
        return Verdict.HOLD, Sentence("gate.idle_held", idle=idle, devices=updated)
    if policy == "human" or (policy is None and nobody and not evidence.first_install):
        return Verdict.HOLD, Sentence("gate.idle_person", idle=idle, devices=updated)
    if evidence.first_install:
        return Verdict.PROMOTE, Sentence("gate.idle_first", idle=idle, devices=updated)
    return (Verdict.PROMOTE, Sentence("gate.idle_passed", devices=updated)) if nobody else None


def _missing(rules: Rules, results: list[MetricResult], *, excused: frozenset[str]) -> list[Sentence]:
    """What must be there and is not: a required metric, or one that devices measured before and stopped measuring."""
    required = set(rules.required_metrics)
    gaps = [r for r in results if r.why and (r.name in required or r.why_code != _NEVER) and r.why_code not in excused]
    absent = required - {result.name for result in results}
    return [Sentence("gap.metric", metric=r.name, why=Sentence(r.why_code)) for r in gaps] + [
        Sentence("gap.absent", name=name) for name in sorted(absent)
    ]


def _guard_alarm(evidence: GateEvidence) -> Sentence | None:
    guards = evidence.guards
    sure = [failure for failure in guards.failed if failure.code in _SURE_CODES]
    if sure and not evidence.rules.judged_before:
        return wording.refused(sure[0], evidence)
    if len(guards.failed) > guards.budget:
        return wording.failures(guards, evidence)
    if len(guards.silent) > guards.budget and not _outage(guards):
        return Sentence("alarm.silent", devices=len(guards.silent), total=guards.touched)
    return _limit_broken(evidence)


def _outage(guards: Guards) -> bool:
    """Whether the silence looks like ours: untouched devices are as silent, or there are none and everybody is."""
    if guards.controls:
        return 2 * guards.silent_controls >= guards.controls
    return guards.touched > 1 and len(guards.silent) >= guards.touched


def _limit_broken(evidence: GateEvidence) -> Sentence | None:
    slo = evidence.rules.slo
    if evidence.telemetry is None or evidence.telemetry.live.requests < _SLO_MIN_REQUESTS:
        return None
    live = evidence.telemetry.live
    if slo.p95_ms is not None and live.p95_ms is not None and live.p95_ms > slo.p95_ms * _HISTOGRAM_ERROR:
        return Sentence("alarm.p95", value=f"{live.p95_ms:.1f}", limit=f"{slo.p95_ms:.1f}")
    share = live.errors / live.requests
    if slo.error_ceiling is not None and share > slo.error_ceiling:
        return Sentence("alarm.errors", share=wording.amount(share, "share"))
    memory = live.peak_memory_mb
    if slo.peak_memory_mb is not None and memory is not None and memory > slo.peak_memory_mb:
        return Sentence("alarm.memory", value=f"{memory:.0f}", limit=f"{slo.peak_memory_mb:.0f}")
    return None


def _loss(metric: MetricEvidence, before: float, after: float) -> float:
    return before - after if metric.spec.direction is Direction.UP else after - before


def _average(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
