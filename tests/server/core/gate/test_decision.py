"""The gate, case by case, then by seeded simulation (small: the large one is `tests/bench/gate.py`)."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.support import gate_world as world
from wavegate_server.core.gate.confidence import radius, variance
from wavegate_server.core.gate.decision import decide, dump, judge, replay
from wavegate_server.core.gate.evidence import Live, MetricEvidence, MetricSpec, Shift, Telemetry
from wavegate_server.core.gate.verdict import Failure, GateEvidence, Guards, Verdict
from wavegate_shared.manifest import Slo
from wavegate_shared.metrics import Direction

ACCURACY = world.ACCURACY
ERRORS = MetricSpec("errors", "failed requests", "share", Direction.DOWN, 0.005)
MILLIMETRES = MetricSpec("mean_absolute_error", "live mean absolute error", "mm", Direction.DOWN, 0.1)
NOISE = [0.001, -0.001] * 48


def metric(
    spec: MetricSpec = ACCURACY, *, loss: float = 0.0, devices: int = 10, blocks: int = 12, **changes: Any
) -> MetricEvidence:
    sign = -1.0 if spec.direction is Direction.UP else 1.0
    base = 0.979 if spec.direction is Direction.UP else 0.01
    shifts = [Shift(f"locker-{n:02}", base, base + sign * loss, 400) for n in range(devices)]
    values: dict[str, Any] = {
        "spec": spec,
        "measured": True,
        "controls": 20,
        "baseline": list(NOISE),
        "blocks": [loss] * blocks,
        "floor": 0.0,
        "shifts": shifts,
    }
    return MetricEvidence(**(values | changes))


def evidence(*metrics: MetricEvidence, updated: int = 10, guards: Guards | None = None, **changes: Any) -> GateEvidence:
    p99 = metric(world.P99, devices=updated or 1)
    errors = metric(ERRORS, devices=updated or 1)
    given = {m.spec.name for m in metrics}
    rest = [m for m in (metric(devices=updated or 1), p99, errors) if m.spec.name not in given]
    telemetry = Telemetry(updated=updated, metrics=[*metrics, *rest], live=Live(requests=1000))
    values: dict[str, Any] = {
        "rollout": "r-1",
        "model": "address-match",
        "version": 4,
        "wave": "canary",
        "soak_over": True,
        "first_install": False,
        "approved_by": "",
        "rules": world.default_rules(),
        "guards": guards or Guards(size=10, budget=1),
        "telemetry": telemetry,
    }
    return GateEvidence(**(values | changes))


def rules(**changes: Any) -> Any:
    return msgspec.structs.replace(world.default_rules(), **changes)


# --- hard guards ------------------------------------------------------------------------------------------------------


def test_one_failed_golden_set_is_enough() -> None:
    failed = [Failure("kiosk-01", "golden_failed", "accuracy 0.61, floor 0.95")]

    decision = decide(evidence(guards=Guards(size=100, budget=10, failed=failed), soak_over=False, telemetry=None))

    assert decision.verdict is Verdict.ROLLBACK
    assert decision.sentence == "kiosk-01 refused version 4 (golden_failed, accuracy 0.61, floor 0.95): rolled back"


@pytest.mark.parametrize(("failures", "verdict"), [(1, Verdict.HOLD), (2, Verdict.ROLLBACK)])
def test_other_failures_stop_it_when_they_exceed_the_budget(failures: int, verdict: Verdict) -> None:
    failed = [Failure(f"d{n}", "load_failed") for n in range(failures)]

    decision = decide(evidence(guards=Guards(size=10, budget=1, failed=failed), soak_over=False))

    assert decision.verdict is verdict


def test_several_failures_are_counted_in_the_sentence() -> None:
    failed = [Failure(f"d{n}", "candidate_crashed") for n in range(3)]

    decision = decide(evidence(guards=Guards(size=10, budget=1, failed=failed)))

    assert decision.sentence == "failed on 3 of 10 devices, 1 allowed (candidate_crashed): rolled back"


def test_devices_that_go_silent_after_the_swap_stop_it() -> None:
    guards = Guards(size=10, budget=1, touched=10, silent=["a", "b", "c"], controls=50, silent_controls=2)

    decision = decide(evidence(guards=guards))

    assert decision.verdict is Verdict.ROLLBACK
    assert decision.sentence == "3 devices of 10 went silent after the swap: rolled back"


@pytest.mark.parametrize(
    "guards",
    [
        Guards(size=10, budget=1, touched=10, silent=["a", "b", "c"], controls=50, silent_controls=30),
        Guards(size=3, budget=0, touched=3, silent=["a", "b", "c"]),
    ],
    ids=["controls are silent too", "nobody is heard, and there are no controls"],
)
def test_an_outage_of_ours_is_not_blamed_on_the_version(guards: Guards) -> None:
    assert decide(evidence(guards=guards, soak_over=False)).verdict is Verdict.HOLD


@pytest.mark.parametrize(
    ("slo", "live", "word"),
    [
        (Slo(p95_ms=50.0), Live(requests=200, p95_ms=52.0), "p95"),
        (Slo(error_ceiling=0.01), Live(requests=200, errors=3), "failed requests"),
        (Slo(peak_memory_mb=100.0), Live(requests=200, peak_memory_mb=120.0), "memory"),
    ],
)
def test_the_versions_own_limits_are_hard(slo: Slo, live: Live, word: str) -> None:
    telemetry = Telemetry(updated=10, metrics=[], live=live)

    decision = decide(evidence(rules=rules(slo=slo), telemetry=telemetry, soak_over=False))

    assert decision.verdict is Verdict.ROLLBACK
    assert word in decision.sentence


def test_limits_are_not_judged_on_a_few_requests() -> None:
    telemetry = Telemetry(updated=1, metrics=[], live=Live(requests=20, p95_ms=900.0))

    assert decide(evidence(rules=rules(slo=Slo(p95_ms=50.0)), telemetry=telemetry)).verdict is Verdict.HOLD


# --- soft metrics -----------------------------------------------------------------------------------------------------


def test_a_clear_loss_rolls_back_before_the_soak_is_over() -> None:
    decision = decide(evidence(metric(loss=0.02), soak_over=False))

    assert decision.verdict is Verdict.ROLLBACK
    assert decision.sentence == (
        "wrong on 10 of 10 devices: live accuracy fell 97.9 % -> 95.9 % (margin 0.5 pt): rolled back"
    )


def test_a_single_canary_is_named_with_the_wide_margin() -> None:
    found = metric(loss=0.267, devices=1, shifts=[Shift("locker-03", 0.979, 0.712, 400)])

    decision = decide(evidence(found, updated=1))

    assert decision.sentence == "locker-03: live accuracy fell 97.9 % -> 71.2 % (margin 5.0 pt): rolled back"


def test_an_error_metric_gates_as_well_as_an_accuracy() -> None:
    shifts = [Shift(f"t{n}", 2.0, 2.6 if n < 7 else 2.0, 50) for n in range(10)]

    decision = decide(evidence(metric(MILLIMETRES, loss=0.42, shifts=shifts)))

    assert decision.verdict is Verdict.ROLLBACK
    assert decision.sentence == (
        "wrong on 7 of 10 devices: live mean absolute error rose 2 mm -> 2.42 mm (margin 0.1 mm): rolled back"
    )


def test_an_improvement_is_never_an_alarm() -> None:
    decision = decide(evidence(metric(loss=-0.2), metric(world.P99, loss=-0.01)))

    assert decision.verdict is Verdict.PROMOTE


def test_the_score_leads_and_other_losses_are_added() -> None:
    decision = decide(evidence(metric(world.P99, loss=0.3), metric(loss=0.2)))

    assert "live accuracy fell" in decision.sentence
    assert decision.sentence.endswith(", also slow: rolled back")


def test_equal_versions_are_proven_not_worse() -> None:
    decision = decide(evidence())

    assert decision.verdict is Verdict.PROMOTE
    assert decision.sentence == "proven not worse on 10 devices: promoted"


def test_nothing_is_promoted_before_the_soak_is_over() -> None:
    assert decide(evidence(soak_over=False)).verdict is Verdict.HOLD


def test_a_wave_that_is_watched_says_what_is_waited_for() -> None:
    ends = "2026-03-01 12:00:00"
    assert decide(evidence(soak_over=False, soak_ends=ends)).sentence == (
        "watching 10 devices: no alarm so far; the soak lasts until 2026-03-01 12:00:00 UTC"
    )
    assert decide(evidence(soak_over=False)).sentence.endswith(
        "no alarm so far; the soak begins when every device of the wave has come to an end"
    )
    assert decide(evidence(updated=0, soak_over=False)).sentence == (
        "no device of this wave serves the new version yet"
    )


def test_no_alarm_is_not_said_where_nothing_could_raise_one() -> None:
    """A young fleet has no baseline: "no alarm so far" looked like good news."""
    young = [metric(baseline=[]), metric(world.P99, baseline=[]), metric(ERRORS, baseline=[])]
    sentence = decide(evidence(*young, soak_over=False, soak_ends="2026-03-01 12:00:00")).sentence
    assert sentence.startswith("watching 10 devices: nothing can be judged yet (live accuracy: ")
    assert sentence.count("no baseline") == 3
    assert sentence.endswith("; the soak lasts until 2026-03-01 12:00:00 UTC")
    first = decide(evidence(*young, soak_over=False, first_install=True, soak_ends="2026-03-01 12:00:00")).sentence
    assert "no alarm so far" in first


@pytest.mark.parametrize(("policy", "verdict"), [("promote", Verdict.PROMOTE), ("hold", Verdict.HOLD)])
def test_a_soak_without_alarm_or_proof_ends_as_the_policy_says(policy: str, verdict: Verdict) -> None:
    noisy = metric(baseline=[0.02, -0.02] * 48)

    decision = decide(evidence(noisy, rules=rules(at_soak_end=policy)))

    assert decision.results[0].verdict is Verdict.INCONCLUSIVE
    assert decision.verdict is verdict


def test_few_canaries_wait_for_a_person_unless_the_policy_is_wide() -> None:
    few = evidence(updated=1)

    human = decide(few)
    wide = decide(msgspec.structs.replace(few, rules=rules(few_canaries="wide")))

    assert human.verdict is Verdict.HOLD
    assert human.sentence == "a person must approve (only 1 device to judge by, margin x 10): held"
    assert wide.verdict is Verdict.PROMOTE
    assert wide.sentence == "proven not worse on 1 device (only 1 device to judge by, margin x 10): promoted"


def test_a_person_may_approve_what_the_gate_holds() -> None:
    decision = decide(evidence(updated=1, approved_by="ana"))

    assert (decision.verdict, decision.sentence) == (Verdict.PROMOTE, "approved by ana: promoted")


def test_a_person_cannot_approve_an_alarm() -> None:
    assert decide(evidence(metric(loss=0.1), approved_by="ana")).verdict is Verdict.ROLLBACK


def test_a_short_baseline_is_said_and_widens_the_margin() -> None:
    short = metric(baseline=NOISE[:6], loss=0.02)

    decision = decide(evidence(short, rules=rules(few_canaries="wide")))

    assert decision.verdict is Verdict.PROMOTE
    assert "baseline of only 6 blocks, margin x 10" in decision.sentence


def test_without_untouched_devices_the_margin_doubles_and_it_is_said() -> None:
    alone = [metric(spec, controls=0) for spec in (ACCURACY, world.P99, ERRORS)]

    decision = decide(evidence(*alone))

    assert {result.margin for result in decision.results} == {0.01}
    assert "no untouched devices left, compared with their own past" in decision.sentence


def test_one_block_is_not_enough_to_condemn_a_single_canary() -> None:
    found = metric(loss=0.9, devices=1, blocks=2)

    assert judge(found, world.default_rules()).verdict is Verdict.INCONCLUSIVE


def test_a_handful_of_blocks_proves_nothing() -> None:
    assert judge(metric(blocks=3), rules(min_blocks=4)).verdict is Verdict.INCONCLUSIVE
    assert judge(metric(blocks=4), rules(min_blocks=4)).verdict is Verdict.PROMOTE


def test_alpha_is_shared_by_all_metrics_and_waves() -> None:
    given = metric()
    expected = radius(variance(given.baseline), blocks=12, baseline_blocks=96, alpha=0.01 / 12)

    assert judge(given, rules(alpha=0.01, comparisons=12)).radius == expected


# --- missing and malformed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        metric(world.P99, blocks=0),
        metric(world.P99, baseline=[]),
        metric(world.P99, measured=False, blocks=0, baseline=[], shifts=[]),
        metric(world.P99, blocks=3, baseline=[float("nan"), *NOISE]),
        metric(MILLIMETRES, baseline=[0.0] * 96),
    ],
    ids=["stopped", "no baseline", "never measured", "not a number", "never varied"],
)
def test_missing_or_malformed_evidence_holds(broken: MetricEvidence) -> None:
    decision = decide(evidence(broken))

    assert decision.verdict is Verdict.HOLD
    assert "evidence is missing" in decision.sentence


def test_without_telemetry_it_holds() -> None:
    assert decide(evidence(telemetry=None)).verdict is Verdict.HOLD


def test_a_fleet_without_labels_is_judged_on_the_rest_and_told_so() -> None:
    unlabelled = metric(measured=False, blocks=0, baseline=[], shifts=[])

    decision = decide(evidence(unlabelled))

    assert decision.verdict is Verdict.PROMOTE
    assert "live accuracy not judged: never measured on these devices" in decision.sentence


def test_labels_that_stop_coming_hold() -> None:
    assert decide(evidence(metric(blocks=0))).verdict is Verdict.HOLD


def test_a_first_version_has_nothing_to_be_compared_with() -> None:
    nothing = [metric(spec, blocks=0, baseline=[], shifts=[]) for spec in (ACCURACY, world.P99, ERRORS)]

    decision = decide(evidence(*nothing, first_install=True, updated=8))

    assert decision.verdict is Verdict.PROMOTE
    assert decision.sentence.startswith("first version on 8 devices")


def test_a_wave_nobody_took_is_held() -> None:
    nothing = [metric(spec, blocks=0, baseline=[], shifts=[]) for spec in (ACCURACY, world.P99, ERRORS)]

    assert decide(evidence(*nothing, updated=0)).verdict is Verdict.HOLD


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_stored_decision_replays_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = metric(
        blocks=0,
        baseline=rng.normal(0, 0.004, 96).tolist(),
        shifts=[Shift(f"d{n}", float(rng.random()), float(rng.random()), 7) for n in range(int(rng.integers(1, 12)))],
    )
    found = msgspec.structs.replace(found, blocks=rng.normal(0.003, 0.004, int(rng.integers(0, 20))).tolist())
    given = evidence(found, soak_over=bool(rng.integers(0, 2)), rules=rules(slo=Slo(p95_ms=31.7)))
    decision = decide(given)

    stored = json.loads(json.dumps(dump(given, decision)))

    assert replay(stored) == decision
    assert msgspec.to_builtins(replay(stored)) == stored["decision"]


@pytest.mark.parametrize("stored", [{}, {"inputs": None}, {"inputs": {"rollout": 3}}])
def test_evidence_that_cannot_be_read_decides_nothing(stored: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        replay(stored)
