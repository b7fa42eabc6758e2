"""What one slot of a device does next: a table, and the pure function that walks it.

`TABLE` holds one row per `DeviceState`: the work of the state, where success and failure lead, what to do when the device is
found in it after a crash or a power cut, and what a newer assignment means there. `step(slot, event, now)` returns the new
slot and the commands; the runner journals the slot *before* it executes a command. `machine_diagram.mermaid` draws it.

Rules that hold in every row (and are tested):
- The active version changes in two places only: a finished swap, and a finished revert or fallback. Until then it serves.
- The version before (standby) stays until its successor has passed its probation, and the one before that (spare) as well,
  so neither a revert nor a rollback ever downloads.
- Network failures are retried for ever with back-off and count towards nothing; every other state change spends `BUDGET`.
- A digest that failed here is quarantined and refused when offered again, until a signed override.
- An assignment to bench ends in BENCH, whatever its work answers, and quarantines nothing: it never comes near the swap.
- Every assignment ends in a report; after a crash it may be sent twice, never zero times. A deferred one is tried again.

Not here: how anything is done (`control/slot_work.py`), how it is stored (`core/journal_format.py`), verification (`core/verify.py`).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from wavegate_agent.core.machine_types import (
    BEFORE_SWAP,
    ActiveLost,
    Arm,
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
    Remove,
    Restarted,
    Revert,
    RunGolden,
    SendReport,
    Slot,
    Swap,
    Tick,
    Verify,
    Version,
    Watch,
    Work,
    short,
)
from wavegate_shared.errors import CODES
from wavegate_shared.states import DeviceState, Outcome

__all__ = ["BUDGET", "MAX_ATTEMPTS", "QUARANTINED_BY", "TABLE", "OnOffer", "OnRestart", "Row", "step"]

BUDGET = 40
"""State changes one assignment may cost; a clean one costs 12, so a loop is cut after the third round at the latest."""
MAX_ATTEMPTS = 2
"""Restarts of the agent during load, golden set, bench or swap that are forgiven; one more is evidence."""
RETRY_FIRST_S = 2.0
RETRY_MAX_S = 300.0
BROKEN_RETRY_S = 300.0
DEFERRED_RETRY_S = 900.0
QUARANTINED_BY = frozenset(
    {"load_failed", "golden_failed", "bench_failed", "candidate_crashed", "model_rejected", "probation_failed"}
)
"""Codes that say something about the version, not about the network, the disk or the assignment."""


# --- the table ------------------------------------------------------------------------------------------------------


class OnRestart(StrEnum):
    """Found here after a crash or power cut."""

    STAY = "stay"
    REDO = "redo"
    RELOAD = "reload"
    REWATCH = "rewatch"
    RETRY = "retry"


class OnOffer(StrEnum):
    """A newer assignment arrives here."""

    TAKE = "take"
    SUPERSEDE = "supersede"
    DEFER = "defer"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Row:
    """One state.

    Attributes:
        work: what is done in it.
        done, failed: where that leads.
        short: where `Done(short=True)` leads.
        restart, offer: see `OnRestart`, `OnOffer`.
        bounded: whether `BUDGET` can end it; the ways out are never cut off.
    """

    work: Work | None
    done: DeviceState | None
    failed: DeviceState | None
    restart: OnRestart
    offer: OnOffer
    short: DeviceState | None = None
    bounded: bool = True


S = DeviceState

TABLE: dict[DeviceState, Row] = {
    S.IDLE: Row(None, None, None, OnRestart.STAY, OnOffer.TAKE, bounded=False),
    S.OFFERED: Row(ReadManifest(), S.PREFLIGHT, S.DISCARDING, OnRestart.REDO, OnOffer.SUPERSEDE),
    S.PREFLIGHT: Row(Preflight(), S.FETCHING, S.DISCARDING, OnRestart.REDO, OnOffer.SUPERSEDE, short=S.VERIFYING),
    S.FETCHING: Row(Fetch(), S.VERIFYING, S.DISCARDING, OnRestart.REDO, OnOffer.SUPERSEDE),
    S.VERIFYING: Row(Verify(), S.LOADING, S.DISCARDING, OnRestart.REDO, OnOffer.SUPERSEDE),
    S.LOADING: Row(Load(), S.GOLDEN, S.DISCARDING, OnRestart.RELOAD, OnOffer.SUPERSEDE),
    S.GOLDEN: Row(RunGolden(), S.BENCH, S.DISCARDING, OnRestart.RELOAD, OnOffer.SUPERSEDE, short=S.READY),
    S.BENCH: Row(BenchCandidate(), S.READY, S.DISCARDING, OnRestart.RELOAD, OnOffer.SUPERSEDE, short=S.DISCARDING),
    S.READY: Row(Arm(), S.SWAPPING, S.DISCARDING, OnRestart.RELOAD, OnOffer.SUPERSEDE),
    S.SWAPPING: Row(Swap(), S.PROBATION, S.DISCARDING, OnRestart.RELOAD, OnOffer.DEFER),
    S.PROBATION: Row(Watch(), S.COMMITTED, S.REVERTING, OnRestart.REWATCH, OnOffer.REVERT),
    S.COMMITTED: Row(Commit(), S.IDLE, S.IDLE, OnRestart.REDO, OnOffer.DEFER, bounded=False),
    S.DISCARDING: Row(Discard(), S.IDLE, S.IDLE, OnRestart.REDO, OnOffer.DEFER, bounded=False),
    S.REVERTING: Row(Revert(), S.DISCARDING, S.FALLBACK, OnRestart.REDO, OnOffer.DEFER, bounded=False),
    S.FALLBACK: Row(Fallback(), S.DISCARDING, S.BROKEN, OnRestart.REDO, OnOffer.DEFER, bounded=False),
    S.BROKEN: Row(None, None, None, OnRestart.RETRY, OnOffer.TAKE, bounded=False),
    S.REMOVING: Row(Remove(), S.COMMITTED, S.COMMITTED, OnRestart.REDO, OnOffer.DEFER, bounded=False),
}

# --- the walk -------------------------------------------------------------------------------------------------------


def step(slot: Slot, event: Event, now: float) -> tuple[Slot, tuple[Command, ...]]:
    """The next slot and what to do, in order; the same arguments always give the same answer.

    Args:
        slot: as journalled.
        event: what happened; an answer to a state that was left meanwhile is ignored.
        now: monotonic seconds, only used for `Slot.due`.
    """
    after, commands = _walk(slot, event, now)
    if after.state is S.IDLE and after.outcome is Outcome.DEFERRED and after.due is None:
        after = replace(after, due=now + DEFERRED_RETRY_S)  # what was short may be there by then
    return after, commands


def _walk(slot: Slot, event: Event, now: float) -> tuple[Slot, tuple[Command, ...]]:
    match event:
        case Offer():
            return _offered(slot, event)
        case Done():
            return _done(slot, event) if event.state is slot.state else (slot, ())
        case Failed():
            return _failed(slot, event, now) if event.state is slot.state else (slot, ())
        case Restarted():
            return _restarted(slot, event)
        case ActiveLost():
            return _active_lost(slot, event)
        case Tick():
            return _tick(slot, event, now)


def _enter(slot: Slot, state: DeviceState) -> tuple[Slot, tuple[Command, ...]]:
    """Move to `state`; a bounded state over budget is left through its row's failure instead."""
    moved = replace(slot, state=state, moves=slot.moves + 1, retries=0, due=None)
    row = TABLE[state]
    if row.bounded and moved.moves > BUDGET and row.failed is not None:
        return _leave(moved, row.failed, "budget_spent", f"more than {BUDGET} state changes")
    if state in (S.IDLE, S.BROKEN):
        return _rest(moved)
    return moved, _commands(moved)


def _commands(slot: Slot) -> tuple[Command, ...]:
    """What a slot does on entering (or finding itself again in) its state."""
    work = TABLE[slot.state].work
    commands: tuple[Command, ...] = () if work is None else (work,)
    if slot.state in (S.COMMITTED, S.DISCARDING, S.BROKEN) and slot.outcome is not None:
        # The report comes first: the work below only tidies up, and a crash in between repeats both.
        commands = (SendReport(slot.assigned, slot.outcome, slot.code, slot.detail), *commands)
    return commands


def _rest(slot: Slot) -> tuple[Slot, tuple[Command, ...]]:
    """Idle or broken: take the assignment that waited, if there is one."""
    if slot.pending is not None:
        report = _commands(slot)
        taken, commands = _take(slot, slot.pending)
        return taken, (*report, *commands)
    return slot, _commands(slot)


def _take(slot: Slot, assigned: AssignedVersion) -> tuple[Slot, tuple[Command, ...]]:
    taken = replace(
        slot, assigned=assigned, pending=None, outcome=None, code=None, detail="", attempts=0, moves=0, spare=None
    )
    forgiven: tuple[Command, ...] = (Forgive(assigned.version.sha256),) if assigned.override else ()
    if assigned.remove:
        done, commands = _enter(taken, S.REMOVING)
    elif slot.state is not S.BROKEN and slot.active == assigned.version and not assigned.bench:
        done, commands = _enter(replace(taken, outcome=Outcome.PROVEN, detail="already active"), S.COMMITTED)
    else:
        done, commands = _enter(taken, S.OFFERED)
    return done, (*forgiven, *commands)


def _offered(slot: Slot, event: Offer) -> tuple[Slot, tuple[Command, ...]]:
    assigned, row = event.assigned, TABLE[slot.state]
    if slot.assigned is not None and assigned.seq <= slot.assigned.seq:
        return slot, _said_again(slot, assigned)
    if slot.pending is not None and assigned.seq <= slot.pending.seq:
        return slot, ()
    if event.quarantined and not assigned.override and slot.active != assigned.version:
        return _refuse_quarantined(slot, assigned)
    if row.offer is OnOffer.TAKE:
        return (replace(slot, pending=assigned), ()) if event.wait else _take(slot, assigned)
    if row.offer is OnOffer.DEFER or (assigned.bench and not slot.benching):
        return replace(slot, pending=assigned), ()  # a measurement waits; it takes nobody's place
    if slot.assigned is not None and slot.assigned.target == assigned.target:
        return _reassigned(slot, assigned)
    waiting = replace(slot, pending=assigned)
    if row.offer is OnOffer.REVERT and slot.standby is not None:
        return _leave(waiting, S.REVERTING, "superseded", f"assignment {assigned.seq} took its place")
    return _leave(waiting, S.DISCARDING, "superseded", f"assignment {assigned.seq} took its place")


def _said_again(slot: Slot, assigned: AssignedVersion) -> tuple[Command, ...]:
    """The server repeats a finished assignment: it may have missed the report, so say it once more."""
    if slot.busy or slot.assigned is None or assigned.seq != slot.assigned.seq or slot.outcome is None:
        return ()
    return (SendReport(slot.assigned, slot.outcome, slot.code, slot.detail),)


def _refuse_quarantined(slot: Slot, assigned: AssignedVersion) -> tuple[Slot, tuple[Command, ...]]:
    """Answer at once; what runs or is being installed is left alone."""
    code, detail = "quarantined", "this version failed here before"
    report = SendReport(assigned, Outcome.REFUSED, code, detail)
    if slot.busy:
        return slot, (report,)
    return replace(slot, assigned=assigned, outcome=Outcome.REFUSED, code=code, detail=detail), (report,)


def _reassigned(slot: Slot, assigned: AssignedVersion) -> tuple[Slot, tuple[Command, ...]]:
    """A newer assignment of the very version being worked on: carry on under the new number."""
    forgiven: tuple[Command, ...] = (Forgive(assigned.version.sha256),) if assigned.override else ()
    return replace(slot, assigned=assigned), forgiven


def _done(slot: Slot, event: Done) -> tuple[Slot, tuple[Command, ...]]:
    row = TABLE[slot.state]
    quick = (slot.state is S.BENCH or (event.short and slot.state is not S.GOLDEN)) if slot.benching else event.short
    target = row.short if quick and row.short is not None else row.done
    if target is None:
        return slot, ()
    match slot.state:
        case S.DISCARDING if slot.lost and slot.pending is None:
            target = S.FALLBACK  # what was tried did not help, so nothing serves yet
        case S.BENCH if slot.benching:
            slot = replace(slot, outcome=Outcome.BENCHED, code=None, detail="")
        case S.SWAPPING:
            slot = _pointers_after_swap(slot)
        case S.PROBATION:
            slot = replace(slot, outcome=Outcome.PROVEN, code=None, detail="")
        case S.COMMITTED:
            slot = replace(slot, spare=None)
        case S.REVERTING:
            slot = replace(slot, active=slot.standby, standby=slot.spare, spare=None, lost=False)
        case S.FALLBACK:
            return _recovered(slot, event.version)
        case S.REMOVING:
            slot = replace(slot, active=None, standby=None, spare=None, lost=False)
            slot = replace(slot, outcome=Outcome.REMOVED, code=None, detail="")
        case _:
            pass
    return _enter(slot, target)


def _pointers_after_swap(slot: Slot) -> Slot:
    if slot.assigned is None:  # cannot be: a swap belongs to an assignment
        return slot
    new, old, before = slot.assigned.version, slot.active, slot.standby
    others = [version for version in (old, before) if version is not None and version != new]
    standby, spare = [*others, None, None][:2]
    return replace(slot, active=new, standby=standby, spare=spare, attempts=0, lost=False)


def _recovered(slot: Slot, found: Version | None) -> tuple[Slot, tuple[Command, ...]]:
    """A fallback worked: point at what it found, and refuse what crashed from now on."""
    slot = replace(slot, lost=False)
    if found is None or found == slot.active:  # it runs after all; only a given-up assignment is worth a report
        deferred = slot.outcome is Outcome.DEFERRED
        return _enter(slot if deferred else replace(slot, outcome=None, code=None, detail=""), S.DISCARDING)
    others = [version for version in (slot.standby, slot.spare) if version not in (None, found)]
    lost = slot.active.sha256 if slot.active is not None and slot.code in QUARANTINED_BY else None
    moved = replace(slot, active=found, standby=others[0] if others else None, spare=None)
    after, commands = _enter(moved, S.DISCARDING)
    return after, ((Quarantine(lost), *commands) if lost else commands)


def _failed(slot: Slot, event: Failed, now: float) -> tuple[Slot, tuple[Command, ...]]:
    row, code = TABLE[slot.state], CODES[event.code]
    if code.kind == "TransferError" and slot.state in BEFORE_SWAP:
        wait = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(slot.retries, 16)) * (1.0 - event.spread / 2)
        return replace(slot, retries=slot.retries + 1, due=now + wait), ()
    if slot.state is S.SWAPPING and code.retry and slot.attempts < MAX_ATTEMPTS:
        return _enter(replace(slot, attempts=slot.attempts + 1), S.LOADING)
    if slot.state in (S.COMMITTED, S.DISCARDING):  # tidying up failed: nothing depends on it, the next one repeats it
        return _enter(slot, S.IDLE)
    if slot.state is S.FALLBACK:
        return _broken(slot, event, now)
    if row.failed is None:
        return slot, ()
    return _leave(slot, row.failed, event.code, event.detail)


def _broken(slot: Slot, event: Failed, now: float) -> tuple[Slot, tuple[Command, ...]]:
    """Nothing serves: say so once, and try again from time to time."""
    lost = replace(slot, outcome=Outcome.BROKEN, code="broken", detail=short(event.detail), lost=True)
    moved, commands = _enter(lost, S.BROKEN)
    if slot.lost:
        commands = tuple(c for c in commands if not (isinstance(c, SendReport) and c.outcome is Outcome.BROKEN))
    return (moved if moved.busy else replace(moved, due=now + BROKEN_RETRY_S)), commands


def _leave(slot: Slot, target: DeviceState, code: str, detail: str) -> tuple[Slot, tuple[Command, ...]]:
    """Give the assignment up: say why, quarantine what earned it, go to `target`."""
    first = slot.code is None  # a failing revert must not overwrite why it was reverted
    if target in (S.REVERTING, S.FALLBACK):
        outcome = Outcome.REVERTED
    else:
        outcome = Outcome.DEFERRED if CODES[code].retry else Outcome.REFUSED
    left = replace(
        slot,
        outcome=outcome if first else slot.outcome,
        code=code if first else slot.code,
        detail=short(detail) if first else slot.detail,
    )
    blamed = first and code in QUARANTINED_BY and not slot.benching
    guilty = slot.assigned.version.sha256 if blamed and slot.assigned is not None else None
    moved, commands = _enter(left, target)
    return moved, ((Quarantine(guilty), *commands) if guilty else commands)


def _restarted(slot: Slot, event: Restarted) -> tuple[Slot, tuple[Command, ...]]:
    slot = replace(slot, due=None, retries=0)
    match TABLE[slot.state].restart:
        case OnRestart.STAY:
            return slot, ()
        case OnRestart.REDO:
            return _enter(slot, slot.state)
        case OnRestart.RETRY:
            return _enter(slot, S.FALLBACK)
        case OnRestart.RELOAD:
            target = S.LOADING
        case OnRestart.REWATCH:
            target = S.PROBATION
    if event.clean:  # stopped in order: no evidence against anything
        return _enter(slot, target)
    if slot.attempts >= MAX_ATTEMPTS:
        failed = TABLE[slot.state].failed or S.DISCARDING
        code = "probation_failed" if slot.state is S.PROBATION else "candidate_crashed"
        return _leave(slot, failed, code, f"the agent ended {slot.attempts + 1} times in {slot.state}")
    return _enter(replace(slot, attempts=slot.attempts + 1), target)


def _active_lost(slot: Slot, event: ActiveLost) -> tuple[Slot, tuple[Command, ...]]:
    match slot.state:
        case S.PROBATION:
            code = event.code if event.code in QUARANTINED_BY else "probation_failed"
            return _leave(slot, S.REVERTING, code, event.detail)
        case S.REVERTING | S.FALLBACK | S.BROKEN | S.REMOVING:
            return slot, ()  # already on the way out
        case _:
            # An assignment in hand is not to blame: it is put off, so that one thing happens at a time.
            outcome = Outcome.DEFERRED if slot.state in BEFORE_SWAP else Outcome.REVERTED
            lost = replace(slot, outcome=outcome, code=event.code, detail=short(event.detail))
            return _enter(lost, S.FALLBACK)


def _tick(slot: Slot, event: Tick, now: float) -> tuple[Slot, tuple[Command, ...]]:
    if slot.state in (S.IDLE, S.BROKEN) and slot.pending is not None and event.free:
        return _take(slot, slot.pending)
    hurry = event.connected and slot.state in BEFORE_SWAP
    if slot.due is None or (now < slot.due and not hurry):
        return slot, ()
    if slot.state is S.IDLE and slot.assigned is not None:
        return _take(replace(slot, due=None), slot.assigned) if event.free else (slot, ())
    if slot.state is S.BROKEN:
        return _enter(slot, S.FALLBACK)
    return replace(slot, due=None), _commands(slot)
