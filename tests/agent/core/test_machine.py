"""The machine: one case per row, a power cut and an error at every state, and what must hold whatever happens."""

from dataclasses import replace

import pytest

from wavegate_agent.core.machine import (
    BUDGET,
    MAX_ATTEMPTS,
    QUARANTINED_BY,
    TABLE,
    OnOffer,
    OnRestart,
    step,
)
from wavegate_agent.core.machine_types import (
    BEFORE_SWAP,
    ActiveLost,
    AssignedVersion,
    BenchCandidate,
    Command,
    Commit,
    Discard,
    Done,
    Event,
    Failed,
    Fallback,
    Fetch,
    Forgive,
    Load,
    Offer,
    Preflight,
    Quarantine,
    ReadManifest,
    Restarted,
    RunGolden,
    SendReport,
    Slot,
    Swap,
    Tick,
    Verify,
    Version,
    Watch,
    Work,
)
from wavegate_shared.states import DeviceState as S
from wavegate_shared.states import Outcome

V1, V2, V3 = (Version(model="m", version=n, sha256=f"{n:064x}") for n in (1, 2, 3))


def assigned(version: Version, seq: int, *, allow_older: bool = False, override: bool = False) -> AssignedVersion:
    return AssignedVersion(seq=seq, version=version, allow_older=allow_older, override=override)


def at(state: S, **more: object) -> Slot:
    """A device that runs V1 (V3 before it), in the middle of bringing V2 at `state`."""
    swapped = state in (S.PROBATION, S.COMMITTED, S.REVERTING)
    base = Slot(
        state=state,
        active=V2 if swapped else V1,
        standby=V1 if swapped else V3,
        spare=V3 if swapped else None,
        assigned=assigned(V2, 5),
        moves=5,
    )
    return replace(base, **more)  # type: ignore[arg-type]  # keyword names are checked by dataclasses itself


def works(commands: tuple[Command, ...]) -> list[type[Command]]:
    return [type(command) for command in commands]


def run(slot: Slot, *events: Event) -> tuple[Slot, list[Command]]:
    said: list[Command] = []
    for event in events:
        slot, commands = step(slot, event, 0.0)
        said += commands
    return slot, said


def test_every_state_has_a_row() -> None:
    assert set(TABLE) == set(S)


@pytest.mark.parametrize(
    ("state", "after", "work"),
    [
        (S.OFFERED, S.PREFLIGHT, Preflight),
        (S.PREFLIGHT, S.FETCHING, Fetch),
        (S.FETCHING, S.VERIFYING, Verify),
        (S.VERIFYING, S.LOADING, Load),
        (S.LOADING, S.GOLDEN, RunGolden),
        (S.GOLDEN, S.BENCH, BenchCandidate),
        (S.BENCH, S.READY, None),
        (S.READY, S.SWAPPING, Swap),
        (S.SWAPPING, S.PROBATION, Watch),
        (S.PROBATION, S.COMMITTED, Commit),
        (S.COMMITTED, S.IDLE, None),
        (S.DISCARDING, S.IDLE, None),
        (S.REVERTING, S.DISCARDING, Discard),
        (S.FALLBACK, S.DISCARDING, Discard),
    ],
)
def test_done_leads_on(state: S, after: S, work: type[Command] | None) -> None:
    slot, commands = step(at(state), Done(state, version=V3), 0.0)
    assert slot.state is after
    if work is not None:
        assert works(commands)[-1] is work


@pytest.mark.parametrize(
    ("state", "code", "after", "outcome"),
    [
        (S.OFFERED, "version_not_listed", S.DISCARDING, Outcome.REFUSED),
        (S.PREFLIGHT, "disk_full", S.DISCARDING, Outcome.DEFERRED),
        (S.FETCHING, "manifest_invalid", S.DISCARDING, Outcome.REFUSED),
        (S.VERIFYING, "digest_mismatch", S.DISCARDING, Outcome.REFUSED),
        (S.LOADING, "load_failed", S.DISCARDING, Outcome.REFUSED),
        (S.GOLDEN, "golden_failed", S.DISCARDING, Outcome.REFUSED),
        (S.BENCH, "bench_failed", S.DISCARDING, Outcome.REFUSED),
        (S.READY, "candidate_crashed", S.DISCARDING, Outcome.REFUSED),
        (S.SWAPPING, "candidate_crashed", S.DISCARDING, Outcome.REFUSED),
        (S.PROBATION, "probation_failed", S.REVERTING, Outcome.REVERTED),
    ],
)
def test_an_error_leads_out(state: S, code: str, after: S, outcome: Outcome) -> None:
    slot, commands = step(at(state), Failed(state, code, "why"), 0.0)
    assert (slot.state, slot.outcome, slot.code, slot.detail) == (after, outcome, code, "why")
    assert (Quarantine(V2.sha256) in commands) == (code in QUARANTINED_BY)
    slot, commands = step(slot, Done(slot.state), 0.0)
    if after is S.REVERTING:
        assert slot.state is S.DISCARDING
        assert slot.active == V1
        slot, commands = step(slot, Done(slot.state), 0.0)
    assert slot.state is S.IDLE
    assert slot.active == V1


@pytest.mark.parametrize("state", sorted(BEFORE_SWAP))
def test_the_network_may_fail_for_ever(state: S) -> None:
    slot = at(state)
    for _ in range(500):
        slot, commands = step(slot, Failed(state, "not_connected"), 100.0)
        assert (slot.state, commands) == (state, ())
        assert slot.due is not None
        assert 100.0 < slot.due <= 400.0
        assert slot.moves == 5
        slot, commands = step(slot, Tick(), slot.due)
        assert works(commands) == [type(TABLE[state].work)]


def test_a_retry_waits_longer_each_time_and_not_at_all_when_the_network_is_back() -> None:
    first, _ = step(at(S.FETCHING), Failed(S.FETCHING, "transfer_stalled"), 0.0)
    second, _ = step(first, Failed(S.FETCHING, "transfer_stalled"), 0.0)
    assert first.due is not None
    assert second.due is not None
    assert second.due > first.due
    assert step(second, Tick(), 0.0)[1] == ()
    assert works(step(second, Tick(connected=True), 0.0)[1]) == [Fetch]


@pytest.mark.parametrize("state", list(S))
def test_a_power_cut_in_any_state_keeps_a_version(state: S) -> None:
    slot, commands = step(at(state), Restarted(), 0.0)
    assert slot.active == at(state).active
    expected = {
        OnRestart.STAY: state,
        OnRestart.REDO: state,
        OnRestart.RELOAD: S.LOADING,
        OnRestart.REWATCH: S.PROBATION,
        OnRestart.RETRY: S.FALLBACK,
    }[TABLE[state].restart]
    assert slot.state is expected
    assert [c for c in commands if isinstance(c, Work)] == [w for w in [TABLE[expected].work] if w is not None]


@pytest.mark.parametrize("state", [S.LOADING, S.GOLDEN, S.BENCH, S.READY, S.SWAPPING])
def test_a_candidate_that_takes_the_agent_down_is_quarantined(state: S) -> None:
    slot, commands = step(at(state, attempts=MAX_ATTEMPTS), Restarted(), 0.0)
    assert (slot.state, slot.code) == (S.DISCARDING, "candidate_crashed")
    assert Quarantine(V2.sha256) in commands
    assert any(isinstance(c, SendReport) and c.outcome is Outcome.REFUSED for c in commands)


@pytest.mark.parametrize("state", [S.LOADING, S.GOLDEN, S.BENCH, S.READY, S.SWAPPING, S.PROBATION])
def test_stopping_in_order_is_no_evidence(state: S) -> None:
    slot = at(state)
    for _ in range(5):
        slot, _ = step(slot, Restarted(clean=True), 0.0)
        assert slot.attempts == 0
        assert slot.state is (S.PROBATION if state is S.PROBATION else S.LOADING)


def test_restarts_in_probation_end_in_a_revert() -> None:
    slot, _ = run(at(S.PROBATION), *[Restarted()] * MAX_ATTEMPTS)
    assert slot.state is S.PROBATION
    slot, commands = step(slot, Restarted(), 0.0)
    assert (slot.state, slot.code) == (S.REVERTING, "probation_failed")
    assert Quarantine(V2.sha256) in commands


@pytest.mark.parametrize("state", list(S))
def test_a_newer_assignment_in_any_state(state: S) -> None:
    slot, commands = step(at(state), Offer(assigned(V3 if state is not S.IDLE else V2, 6)), 0.0)
    match TABLE[state].offer:
        case OnOffer.TAKE:
            assert slot.state is S.OFFERED
            assert slot.assigned is not None
            assert slot.assigned.seq == 6
        case OnOffer.SUPERSEDE:
            assert slot.state is S.DISCARDING
            assert commands[0] == SendReport(assigned(V2, 5), Outcome.REFUSED, "superseded", slot.detail)
        case OnOffer.REVERT:
            assert slot.state is S.REVERTING
            assert not any(isinstance(c, Quarantine) for c in commands)
        case OnOffer.DEFER:
            assert (slot.state, commands) == (state, ())
            assert slot.pending is not None


def test_a_deferred_assignment_is_taken_when_the_hands_are_free() -> None:
    slot, _ = step(at(S.SWAPPING), Offer(assigned(V3, 6)), 0.0)
    slot, said = run(slot, Done(S.SWAPPING), Done(S.PROBATION), Done(S.COMMITTED))
    assert slot.state is S.OFFERED
    assert slot.assigned == assigned(V3, 6)
    assert (slot.active, slot.standby) == (V2, V1)
    assert ReadManifest in works(tuple(said))


def test_the_server_takes_a_version_back_during_probation() -> None:
    """A rollback to the standby is a revert: no download, no load; both assignments get their report."""
    slot, said = run(at(S.PROBATION), Offer(assigned(V1, 6, allow_older=True)), Done(S.REVERTING), Done(S.DISCARDING))
    assert (slot.state, slot.active) == (S.COMMITTED, V1)
    reports = [(c.assigned.seq, c.outcome) for c in said if isinstance(c, SendReport) and c.assigned]
    assert reports == [(5, Outcome.REVERTED), (6, Outcome.PROVEN)]
    assert Fetch not in works(tuple(said))


def test_a_first_version_in_probation_is_not_thrown_away_for_a_newer_one() -> None:
    first = at(S.PROBATION, standby=None, spare=None)
    slot, _ = step(first, Offer(assigned(V3, 6)), 0.0)
    assert (slot.state, slot.active) == (S.DISCARDING, V2)


def test_the_same_version_under_a_new_number_carries_on() -> None:
    slot, commands = step(at(S.FETCHING), Offer(assigned(V2, 9)), 0.0)
    assert (slot.state, commands) == (S.FETCHING, ())
    assert slot.assigned is not None
    assert slot.assigned.seq == 9


def test_an_older_or_equal_assignment_changes_nothing() -> None:
    for seq in (4, 5):
        assert step(at(S.FETCHING), Offer(assigned(V3, seq)), 0.0) == (at(S.FETCHING), ())


def test_a_finished_assignment_said_again_is_reported_again() -> None:
    idle = at(S.IDLE, outcome=Outcome.PROVEN)
    assert step(idle, Offer(assigned(V2, 5)), 0.0) == (idle, (SendReport(idle.assigned, Outcome.PROVEN, None, ""),))


def test_what_already_runs_is_proven_at_once() -> None:
    slot, said = run(at(S.IDLE), Offer(assigned(V1, 6)), Done(S.COMMITTED))
    assert (slot.state, slot.active, slot.standby) == (S.IDLE, V1, V3)
    assert works(tuple(said)) == [SendReport, Commit]


def test_what_is_on_disk_is_not_fetched_and_a_rollback_is_not_benched() -> None:
    slot, said = run(
        at(S.IDLE),
        Offer(assigned(V3, 6, allow_older=True)),
        Done(S.OFFERED),
        Done(S.PREFLIGHT, short=True),
        Done(S.VERIFYING),
        Done(S.LOADING),
        Done(S.GOLDEN, short=True),
        Done(S.READY),
        Done(S.SWAPPING),
    )
    assert (slot.state, slot.active, slot.standby, slot.spare) == (S.PROBATION, V3, V1, None)
    assert not {Fetch, BenchCandidate} & set(works(tuple(said)))


def test_a_quarantined_digest_is_refused_until_an_override() -> None:
    slot, commands = step(at(S.IDLE), Offer(assigned(V2, 6), quarantined=True), 0.0)
    assert slot.state is S.IDLE
    assert commands == (SendReport(assigned(V2, 6), Outcome.REFUSED, "quarantined", slot.detail),)
    slot, commands = step(slot, Offer(assigned(V2, 7, override=True), quarantined=True), 0.0)
    assert slot.state is S.OFFERED
    assert commands[0] == Forgive(V2.sha256)


def test_a_quarantined_offer_does_not_disturb_an_install() -> None:
    slot, commands = step(at(S.FETCHING), Offer(assigned(V3, 6), quarantined=True), 0.0)
    assert slot == at(S.FETCHING)
    assert works(commands) == [SendReport]


def test_three_versions_stay_until_the_newest_is_proven() -> None:
    probation = at(S.PROBATION)
    assert set(probation.kept) == {V1, V2, V3}
    committed, _ = step(probation, Done(S.PROBATION), 0.0)
    assert set(committed.kept) == {V1, V2}


def test_a_failed_swap_is_tried_again_and_then_put_off() -> None:
    slot = at(S.SWAPPING)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        slot, commands = step(slot, Failed(S.SWAPPING, "swap_failed"), 0.0)
        assert (slot.state, slot.attempts, works(commands)) == (S.LOADING, attempt, [Load])
        slot = replace(slot, state=S.SWAPPING)
    slot, commands = step(slot, Failed(S.SWAPPING, "swap_failed"), 0.0)
    assert (slot.state, slot.outcome) == (S.DISCARDING, Outcome.DEFERRED)


def test_a_deferred_assignment_is_tried_again_later() -> None:
    slot, _ = step(at(S.PREFLIGHT), Failed(S.PREFLIGHT, "disk_full"), 0.0)
    slot, _ = step(slot, Done(S.DISCARDING), 100.0)
    assert (slot.state, slot.due) == (S.IDLE, 1000.0)
    assert step(slot, Tick(connected=True), 999.0) == (slot, ())
    slot, commands = step(slot, Tick(), 1000.0)
    assert (slot.state, slot.outcome, works(commands)) == (S.OFFERED, None, [ReadManifest])
    restarted, _ = step(replace(slot, state=S.IDLE, outcome=Outcome.DEFERRED), Restarted(), 50.0)
    assert restarted.due == 950.0


def test_a_failed_revert_falls_back_and_keeps_the_first_reason() -> None:
    slot, _ = step(at(S.PROBATION), Failed(S.PROBATION, "probation_failed", "slow"), 0.0)
    slot, commands = step(slot, Failed(S.REVERTING, "load_failed", "no"), 0.0)
    assert (slot.state, works(commands)) == (S.FALLBACK, [Fallback])
    slot, commands = step(slot, Done(S.FALLBACK, version=V3), 0.0)
    assert (slot.active, slot.code, slot.outcome) == (V3, "probation_failed", Outcome.REVERTED)


def test_nothing_serves_is_said_once_and_tried_again() -> None:
    slot, commands = step(at(S.FALLBACK), Failed(S.FALLBACK, "load_failed"), 0.0)
    assert (slot.state, slot.outcome) == (S.BROKEN, Outcome.BROKEN)
    assert works(commands) == [SendReport]
    assert slot.due is not None
    slot, commands = step(slot, Tick(), slot.due)
    assert works(commands) == [Fallback]
    slot, commands = step(slot, Failed(S.FALLBACK, "load_failed"), 0.0)
    assert commands == ()
    slot, commands = step(slot, Restarted(), 0.0)
    slot, commands = step(slot, Done(S.FALLBACK, version=V1), 0.0)
    assert (slot.state, slot.lost, works(commands)) == (S.DISCARDING, False, [Discard])


def test_a_broken_device_takes_a_new_version() -> None:
    broken = at(S.BROKEN, lost=True, outcome=Outcome.BROKEN)
    slot, _ = step(broken, Offer(assigned(V2, 6)), 0.0)
    assert slot.state is S.OFFERED
    slot, _ = run(replace(slot, state=S.SWAPPING), Done(S.SWAPPING))
    assert (slot.active, slot.lost) == (V2, False)


def test_a_broken_device_whose_new_version_fails_looks_for_an_old_one_again() -> None:
    slot = at(S.LOADING, lost=True)
    slot, _ = step(slot, Failed(S.LOADING, "load_failed"), 0.0)
    slot, commands = step(slot, Done(S.DISCARDING), 0.0)
    assert (slot.state, works(commands)) == (S.FALLBACK, [Fallback])


@pytest.mark.parametrize("state", list(S))
def test_losing_the_active_version_in_any_state(state: S) -> None:
    slot, commands = step(at(state), ActiveLost("candidate_crashed", "signal 11"), 0.0)
    if state is S.PROBATION:
        assert (slot.state, slot.outcome) == (S.REVERTING, Outcome.REVERTED)
    elif state in (S.REVERTING, S.FALLBACK, S.BROKEN, S.REMOVING):
        assert (slot, commands) == (at(state), ())
    else:
        assert (slot.state, works(commands)) == (S.FALLBACK, [Fallback])
        assert slot.outcome is (Outcome.DEFERRED if state in BEFORE_SWAP else Outcome.REVERTED)


def test_a_crash_loop_after_commit_is_quarantined_when_another_version_helps() -> None:
    slot, said = run(at(S.IDLE), ActiveLost("candidate_crashed"), Done(S.FALLBACK, version=V3))
    assert slot.active == V3
    assert Quarantine(V1.sha256) in said


def test_a_loop_spends_the_budget() -> None:
    slot = at(S.PREFLIGHT)
    for _ in range(BUDGET + 1):
        slot, _ = step(slot, Restarted(), 0.0)
    assert (slot.state, slot.code, slot.outcome) == (S.DISCARDING, "budget_spent", Outcome.REFUSED)


def test_an_answer_to_a_state_that_was_left_is_ignored() -> None:
    assert step(at(S.GOLDEN), Done(S.LOADING), 0.0) == (at(S.GOLDEN), ())
    assert step(at(S.GOLDEN), Failed(S.LOADING, "load_failed"), 0.0) == (at(S.GOLDEN), ())
