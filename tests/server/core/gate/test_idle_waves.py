"""Waves in which devices had no live traffic: they pass on golden set, bench and guards, and the sentence says so."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.core.gate.test_decision import ERRORS, NOISE, evidence, metric, rules
from tests.support import gate_world as world
from wavegate_server.core.gate.decision import decide, dump, replay
from wavegate_server.core.gate.evidence import Live, MetricEvidence, Telemetry
from wavegate_server.core.gate.verdict import Failure, GateEvidence, Guards, Verdict, Waiting


def idle_evidence(updated: int, live: int, *, policy: str | None = None, loss: float = 0.0, **changes: Any) -> Any:
    """A wave of `updated` devices of which `live` served requests, with what a gate gets of them."""
    kinds: dict[str, Any] = {"loss": loss} if live else {"measured": False, "blocks": 0, "baseline": []}
    metrics = [metric(spec, devices=live, **kinds) for spec in (world.ACCURACY, world.P99, ERRORS)]
    return wave(metrics, updated, live, policy=policy, **changes)


def wave(metrics: list[MetricEvidence], updated: int, live: int, *, policy: str | None, **changes: Any) -> GateEvidence:
    telemetry = Telemetry(updated=updated, metrics=metrics, live=Live(requests=50 * live), live_devices=live)
    values: dict[str, Any] = {"rules": rules(idle_wave=policy), "guards": Guards(size=updated, budget=0)} | changes
    return evidence(telemetry=telemetry, updated=updated, **values)


@pytest.mark.parametrize(
    ("updated", "live", "policy", "verdict", "sentence"),
    [
        (5, 0, None, "hold", "5 of 5 devices had no live traffic, a person must approve: held"),
        (5, 0, "human", "hold", "5 of 5 devices had no live traffic, a person must approve: held"),
        (5, 0, "hold", "hold", "5 of 5 devices had no live traffic, waits for live requests: held"),
        (5, 0, "promote", "promote", "no live traffic on 5 devices, passed on golden set, bench and guards: promoted"),
        (5, 2, "human", "hold", "3 of 5 devices had no live traffic, a person must approve: held"),
        (5, 2, "hold", "hold", "3 of 5 devices had no live traffic, waits for live requests: held"),
    ],
)
def test_the_policy_decides_about_idle_devices(
    updated: int, live: int, policy: str | None, verdict: str, sentence: str
) -> None:
    decision = decide(idle_evidence(updated, live, policy=policy))
    assert (decision.verdict, decision.sentence) == (verdict, sentence)


@pytest.mark.parametrize("policy", [None, "promote"])
@pytest.mark.parametrize("live", [1, 2, 4])
def test_one_live_canary_takes_the_idle_ones_along_and_it_is_said(live: int, policy: str | None) -> None:
    decision = decide(idle_evidence(5, live, policy=policy))
    assert decision.verdict is Verdict.PROMOTE
    assert f"{5 - live} of 5 devices had no live traffic" in decision.sentence


def test_fewer_than_five_canaries_need_a_person_with_or_without_idle_ones() -> None:
    decision = decide(idle_evidence(3, 1))
    assert decision.verdict is Verdict.HOLD
    assert decision.sentence.startswith(
        "a person must approve (only 1 device to judge by, margin x 10; 2 of 3 devices had"
    )


def test_a_live_canary_without_a_past_is_no_reason_to_hold_but_malformed_values_are() -> None:
    young = [metric(spec, devices=1, baseline=[]) for spec in (world.ACCURACY, world.P99, ERRORS)]
    decision = decide(wave(young, 5, 1, policy=None))
    assert decision.verdict is Verdict.PROMOTE
    assert decision.sentence.startswith(
        "no alarm on 5 devices through the whole soak (4 of 5 devices had no live traffic; "
    )
    broken = [*young[:2], metric(ERRORS, devices=1, baseline=[float("nan"), *NOISE])]
    assert (
        decide(wave(broken, 5, 1, policy=None)).sentence
        == "evidence is missing (failed requests: malformed values): held"
    )


def test_a_first_version_passes_without_traffic_unless_the_policy_says_otherwise() -> None:
    first = decide(idle_evidence(2, 0, first_install=True))
    assert (first.verdict, first.sentence) == (
        "promote",
        "first version on 2 devices, 2 without live traffic, all proven by their own checks: promoted",
    )
    for policy in ("human", "hold"):
        assert decide(idle_evidence(2, 0, policy=policy, first_install=True)).verdict is Verdict.HOLD


def test_a_person_may_approve_an_idle_wave() -> None:
    assert decide(idle_evidence(5, 0, policy="hold", approved_by="ana")).verdict is Verdict.PROMOTE


def test_idle_devices_wait_for_the_end_of_the_soak_like_all_others() -> None:
    assert decide(idle_evidence(5, 0, policy="promote", soak_over=False)).verdict is Verdict.HOLD


@given(
    updated=st.integers(1, 12),
    live=st.integers(0, 12),
    policy=st.sampled_from([None, "promote", "human", "hold"]),
    loss=st.sampled_from([0.0, 0.002, 0.1]),
    failed=st.booleans(),
    first=st.booleans(),
)
def test_idle_devices_are_never_evidence_of_live_quality(
    updated: int, live: int, policy: str | None, loss: float, failed: bool, first: bool
) -> None:
    """No word "proven not worse" without live requests, no alarm that idle devices talk down, and every decision replays."""
    live = min(live, updated)
    guards = Guards(size=updated, budget=0, failed=[Failure("d0", "golden_failed")] if failed else [])
    given_evidence = idle_evidence(updated, live, policy=policy, loss=loss, guards=guards, first_install=first)
    decision = decide(given_evidence)
    assert replay(dump(given_evidence, decision)) == decision
    if failed or (live >= 5 and loss == 0.1):
        assert decision.verdict is Verdict.ROLLBACK
    elif live == 0:
        assert "not worse" not in decision.sentence
        assert (decision.verdict is Verdict.PROMOTE) == (policy == "promote" or (policy is None and first))
    elif live < updated and policy in ("human", "hold"):
        assert decision.verdict is not Verdict.PROMOTE


def test_rows_of_older_releases_know_nothing_of_idle_devices() -> None:
    old = evidence()
    assert old.telemetry is not None
    assert (old.telemetry.live_devices, old.telemetry.idle) == (None, 0)
    assert decide(old).verdict is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("own", "ending"),
    [
        (False, "a device without them counts as failed from 2026-03-01 12:00:00 UTC on"),
        (True, "where they do not come, own requests prove the version"),
    ],
)
def test_what_a_wave_on_probation_waits_for_is_said(own: bool, ending: str) -> None:
    waiting = Waiting(devices=3, fewest=2, requests=50, own=own, until="2026-03-01 12:00:00")
    decision = decide(evidence(soak_over=False, waiting=waiting))
    assert decision.sentence == f"waits for 50 live requests on 3 devices; the quietest had 2; {ending}"
    soaking = evidence(soak_over=False, waiting=waiting, soak_ends="2026-03-01 13:00:00")
    assert decide(soaking).sentence.startswith("watching 10 devices")
