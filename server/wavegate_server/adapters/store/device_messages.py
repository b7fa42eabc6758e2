"""What devices say, written to the tables: inventory, states, signed reports. Everything here may be repeated without harm.

Called by ingest inside its transaction, after the watermark dropped duplicates and, for reports, after the signature held. A
word from a device moves its row in a rollout (`core/rollout/progress`); what follows from that is decided by the engine's next step.
Not here: telemetry windows (ingest), orders (`orders`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.tables import (
    Device,
    DeviceAssignment,
    DeviceEvent,
    DeviceReport,
    DeviceSlot,
    Rollout,
    RolloutDevice,
)
from wavegate_server.adapters.store.assignment_books import queue
from wavegate_server.adapters.store.audit import bump_revision
from wavegate_server.adapters.store.device_slots import note_report, note_state, say_inventory, slots_of
from wavegate_server.adapters.store.rollout_view import touch
from wavegate_server.adapters.trust.renewal import note_used
from wavegate_server.core.gate.policy import parse_policy
from wavegate_server.core.identity_runs import Run, note_run
from wavegate_server.core.ingest import MAX_COUNT
from wavegate_server.core.rollout.progress import Progress, after_report, after_restore_report, after_state
from wavegate_shared.states import AssignmentState
from wavegate_shared.topics import Topics
from wavegate_shared.wire import Hello, Report, StateEvent

__all__ = ["DeviceMessageStore", "Verified"]

_CLOCK_TRUST = timedelta(hours=1)
"""A device's time of an event counts only this near to the server's."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A report whose signature held, and the envelope it came in."""

    report: Report
    envelope: bytes


class DeviceMessageStore:
    """Applies devices' messages. `topics` are for the answer to a hello."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def apply_up(self, session: Session, device_id: str, message: Hello | StateEvent | Verified, now: datetime) -> None:
        """Write one message of an active device, in the caller's transaction.

        Args:
            session: of ingest's write transaction.
            device_id: from the topic, checked against the registry.
            message: decoded; a report comes verified.
            now: aware UTC, server's clock.
        """
        device = session.get(Device, device_id)
        if device is None:
            return
        device.last_seen = now
        session.add(device)
        if isinstance(message, Hello):
            self._hello(session, device, message, now)
        elif isinstance(message, StateEvent):
            _state(session, device, message, now)
        else:
            _report(session, device, message, now)
        session.flush()
        touch(session, (device.id,))
        bump_revision(session)

    def _hello(self, session: Session, device: Device, hello: Hello, now: datetime) -> None:
        device.agent_version = hello.agent_version
        say_inventory(session, device, hello.slots)
        device.facts = dict(hello.facts)
        device.quarantined = {"digests": list(hello.quarantined)}
        device.clock = hello.clock
        note_used(session, device, hello.certificate, now)
        _note_run(session, device, hello, now)
        device.revision += 1
        _accepted(session, device, hello.assignment_seq)
        _match_inventory(session, device, now)
        session.add(DeviceEvent(device_id=device.id, at=now, kind="hello", assignment_seq=hello.assignment_seq))
        desired = session.get(DeviceAssignment, device.id)
        if desired is not None and desired.expires_at > now:
            stamp = int(now.timestamp() * 1000)
            dedup = f"hello:{device.id}:{hello.boot}:{desired.seq}:{stamp}"
            queue(session, self._topics, [(device.id, desired.envelope, dedup)], now)


def _note_run(session: Session, device: Device, hello: Hello, now: datetime) -> None:
    """A copied identity is an alert; neither of the two is refused: nobody knows which one is right."""
    known = msgspec.convert((device.runs or {}).get("runs", []), list[Run])
    turn = note_run(known, hello.run, hello.facts)
    device.runs = {"runs": msgspec.to_builtins(turn.runs)}
    if turn.other is None or device.cloned:
        return
    device.cloned = f"{turn.runs[-1]} and {turn.other}"
    session.add(
        DeviceEvent(device_id=device.id, at=now, kind="alert", code="identity_cloned", detail=device.cloned[:500])
    )


def _state(session: Session, device: Device, event: StateEvent, now: datetime) -> None:
    at = _device_time(event.at, now)
    session.add(
        DeviceEvent(
            device_id=device.id,
            at=at,
            kind="state",
            assignment_seq=event.assignment_seq,
            slot=event.slot,
            model=event.model,
            version=event.version,
            state=event.state.value,
            code=event.code,
            detail=event.detail,
        )
    )
    note_state(session, device, event)
    _accepted(session, device, event.assignment_seq)
    row = _row_of(session, device.id, event.assignment_seq, event.model)
    if row is not None and row.rollback_seq == 0:
        if event.live_requests is not None:
            row.live_requests = min(event.live_requests, MAX_COUNT)
            session.add(row)
        _move(session, row, after_state(AssignmentState(row.state), event.state), at, now)


def _report(session: Session, device: Device, verified: Verified, now: datetime) -> None:
    report = verified.report
    at = _device_time(report.at, now)
    known = select(DeviceReport.id).where(
        DeviceReport.device_id == device.id,
        DeviceReport.assignment_seq == report.assignment_seq,
        DeviceReport.envelope == verified.envelope,
    )
    if session.exec(known).first() is not None:
        return
    session.add(
        DeviceReport(
            device_id=device.id,
            received_at=now,
            assignment_seq=report.assignment_seq,
            rollout_id=report.rollout,
            model=report.model,
            version=report.version,
            outcome=report.outcome.value,
            code=report.code,
            bytes_fetched=report.bytes_fetched,
            served=report.served,
            body=msgspec.to_builtins(report),
            envelope=verified.envelope,
        )
    )
    session.add(
        DeviceEvent(
            device_id=device.id,
            at=at,
            kind="report",
            assignment_seq=report.assignment_seq,
            slot=report.slot,
            model=report.model,
            version=report.version,
            state=report.outcome.value,
            code=report.code,
            detail=report.detail,
        )
    )
    note_report(session, device, report)
    _accepted(session, device, report.assignment_seq)
    row = _row_of(session, device.id, report.assignment_seq, report.model)
    if row is None:
        return
    current = AssignmentState(row.state)
    if report.assignment_seq == row.rollback_seq:
        _move(session, row, after_restore_report(current, report.outcome), at, now, report)
    elif row.rollback_seq == 0:
        row.live_requests = min(report.served, MAX_COUNT)
        session.add(row)
        _move(session, row, after_report(current, report.outcome), at, now, report)


def _row_of(session: Session, device_id: str, seq: int, model: str) -> RolloutDevice | None:
    """The row whose assignment or rollback of `model` this `seq` is; 0 and direct assignments have none."""
    if seq == 0:
        return None
    query = (
        select(RolloutDevice)
        .join(Rollout, col(Rollout.id) == RolloutDevice.rollout_id)
        .where(
            RolloutDevice.device_id == device_id,
            Rollout.model == model,
            (col(RolloutDevice.assignment_seq) == seq) | (col(RolloutDevice.rollback_seq) == seq),
        )
    )
    return session.exec(query).first()


def _move(
    session: Session, row: RolloutDevice, progress: Progress, at: datetime, now: datetime, report: Report | None = None
) -> None:
    if progress.state is None:
        return
    row.state = progress.state.value
    if progress.accepted and row.accepted_at is None:
        row.accepted_at = at
        rollout = session.get_one(Rollout, row.rollout_id)
        row.deadline = now + timedelta(seconds=parse_policy(rollout.policy).deadline_s)
    if progress.swapped and row.swapped_at is None:
        row.swapped_at = _swap_time(report, at)
    if progress.finished:
        row.finished_at = at
    if report is not None:
        row.code = report.code
        if report.detail:
            row.reason, row.said = report.detail, {}
    else:
        row.reason, row.said = "", {}
    session.add(row)


def _swap_time(report: Report | None, at: datetime) -> datetime:
    """When the swap happened, for a device whose state messages were lost: a report comes a probation later."""
    return at - timedelta(seconds=report.probation_s) if report is not None else at


def _accepted(session: Session, device: Device, seq: int) -> None:
    device.assignment_seq = max(device.assignment_seq, seq)
    assignment = session.get(DeviceAssignment, device.id)
    if assignment is not None and seq >= assignment.seq and not assignment.acknowledged:
        assignment.acknowledged = True
        session.add(assignment)


def _match_inventory(session: Session, device: Device, now: datetime) -> None:
    """A hello that names an assignment as accepted counts as its acceptance, should the state messages have been lost."""
    for slot in slots_of(session, device.id).values():
        if 0 < slot.seq <= device.assignment_seq:
            _match_slot(session, device, slot, now)


def _match_slot(session: Session, device: Device, slot: DeviceSlot, now: datetime) -> None:
    row = _row_of(session, device.id, slot.seq, slot.model)
    if row is None:
        return
    back = bool(row.rollback_seq) and row.rollback_seq == slot.seq
    if back and slot.version == slot.assigned_version and slot.state in _AT_REST:
        if row.state not in (AssignmentState.FAILED.value, AssignmentState.SKIPPED.value):
            _move(session, row, Progress(AssignmentState.ROLLED_BACK, finished=True), now, now)
    elif row.rollback_seq == 0 and row.state in _NOT_YET_ACCEPTED:
        _move(session, row, Progress(AssignmentState.ACCEPTED, accepted=True), now, now)


_AT_REST = ("idle", "committed")
_NOT_YET_ACCEPTED = (AssignmentState.PUBLISHED.value, AssignmentState.TIMED_OUT.value)


def _device_time(at: datetime, now: datetime) -> datetime:
    if at.tzinfo is None or abs(at - now) > _CLOCK_TRUST:
        return now
    return min(at, now)
