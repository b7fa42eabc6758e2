"""Writing one transition of a rollout, whole, in the caller's transaction. See `rollout_store`."""

from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, select

from wavegate_server.adapters.database.tables import (
    DeviceSlot,
    GateDecision,
    Model,
    Rollout,
    RolloutDevice,
    RolloutWave,
    Version,
)
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.assignments import AssignmentBatch, AssignmentDraft, AssignmentWriter
from wavegate_server.adapters.store.fleet_defaults import leave_default
from wavegate_server.core.gate import decision
from wavegate_server.core.rollout.after import watch_until
from wavegate_server.core.rollout.plan import DeviceChange, GateRecord, RolloutView, Transition, WaveChange
from wavegate_server.core.rollout.step import holders
from wavegate_server.core.sentences import said_of
from wavegate_shared.states import AssignmentState, RolloutState, WaveState

__all__ = ["write_transition"]

_ENDED = frozenset({RolloutState.COMPLETED, RolloutState.ROLLED_BACK, RolloutState.CANCELLED})
_LIVE_VERSION = frozenset({"published"})


def write_transition(
    session: Session, view: RolloutView, transition: Transition, orders: AssignmentWriter, *, actor: str, now: datetime
) -> None:
    """Write everything `transition` decided about `view`, which was read in this same transaction."""
    if transition.empty:
        return
    rollout = session.get_one(Rollout, view.id)
    rows = {
        row.device_id: row for row in session.exec(select(RolloutDevice).where(RolloutDevice.rollout_id == view.id))
    }
    _write_rollout(rollout, transition, now)
    if transition.state is not None:
        rollout.next_at = watch_until(view, now) if transition.state is RolloutState.COMPLETED else None
    for wave in transition.waves:
        _write_wave(session, view.id, wave, now)
    for change in transition.devices:
        _write_device(rows[change.device], change, now)
    having = {device.device: device.back for device in holders(view)}
    with orders.batch(session, now) as batch:
        for device_id in transition.publish:
            _publish(session, batch, view, rows[device_id], now)
        for device_id in transition.restore:
            row = rows[device_id]
            version = (
                _version(session, view.model, having[device_id])
                if device_id in having and transition.action != "rollout.abort"
                else _way_back(session, view.model, row.previous_version, view.version)
            )
            _restore(batch, view, row, version, transition.reason or rollout.reason)
    if transition.gate is not None:
        _write_gate(session, view.id, transition.gate, now)
    if not rollout.late:
        _write_aliases(session, view, transition)
    if transition.state is RolloutState.COMPLETED:
        leave_default(session, rollout, now)
    session.add(rollout)
    if transition.action:
        detail = {
            "sentence": str(transition.sentence),
            "said": said_of(transition.sentence),
            "publish": len(transition.publish),
            "restore": len(transition.restore),
        }
        audit.append(
            session, actor=actor, action=transition.action, subject=f"rollout/{view.id}", now=now, detail=detail
        )
    else:
        audit.bump_revision(session)


def _write_rollout(rollout: Rollout, transition: Transition, now: datetime) -> None:
    rollout.revision += 1
    if transition.reason is not None:
        rollout.reason, rollout.said = str(transition.reason), said_of(transition.reason)
    if transition.wave is not None:
        rollout.wave = transition.wave
    if transition.state is None:
        return
    if transition.state is RolloutState.RUNNING and rollout.started_at is None:
        rollout.started_at = now
    rollout.finished_at = now if transition.state in _ENDED else None
    rollout.state = transition.state.value


def _write_wave(session: Session, rollout_id: str, change: WaveChange, now: datetime) -> None:
    row = session.get_one(RolloutWave, (rollout_id, change.number))
    if change.approved_by is not None:
        row.approved_by = change.approved_by
    if change.state is not None:
        row.state = change.state.value
    if change.state is WaveState.RUNNING:
        row.started_at = now
    elif change.state is WaveState.SOAKING:
        row.soak_started_at = now
    elif change.state in (WaveState.PASSED, WaveState.FAILED):
        row.finished_at = now
    session.add(row)


def _write_device(row: RolloutDevice, change: DeviceChange, now: datetime) -> None:
    row.reason, row.said = str(change.reason), said_of(change.reason)
    if change.code is not None:
        row.code = change.code
    if change.deadline is not None:
        row.deadline = change.deadline
    if change.state is not None:
        row.state = change.state.value
        if change.state in (AssignmentState.SKIPPED, AssignmentState.TIMED_OUT):
            row.finished_at = now


def _publish(session: Session, batch: AssignmentBatch, view: RolloutView, row: RolloutDevice, now: datetime) -> None:
    version = _version(session, view.model, view.version)
    slot = session.get(DeviceSlot, (row.device_id, view.model))
    if slot is not None and slot.state:
        row.previous_version = slot.version
    order = AssignmentDraft(
        version=version,
        model=view.model,
        rollout=view.id,
        wave=row.wave,
        reason=f"{view.waves[row.wave].name} of rollout {view.id}",
        attempt=row.attempt,
        allow_older=bool(view.policy.downgrade),
        probation=view.policy.probation,
    )
    row.assignment_seq = batch.give(row.device_id, order)
    row.state = AssignmentState.PUBLISHED.value
    row.published_at = now
    row.live_requests = None
    row.deadline = now + timedelta(seconds=view.policy.deadline_s)
    row.reason, row.said = "", {}
    session.add(row)


def _restore(
    batch: AssignmentBatch, view: RolloutView, row: RolloutDevice, version: Version | None, reason: str
) -> None:
    order = AssignmentDraft(
        version=version,
        model=view.model,
        rollout=view.id,
        wave=row.wave,
        reason=reason[:400],
        attempt=row.attempt,
        allow_older=True,
        probation=view.policy.probation,
    )
    row.rollback_seq = batch.give(row.device_id, order)


def _version(session: Session, model: str, number: int) -> Version | None:
    return session.exec(select(Version).where(Version.model == model, Version.number == number)).first()


def _way_back(session: Session, model: str, previous: int, bad: int) -> Version | None:
    """The device's previous version; where that was revoked since, the newest good one below the bad one."""
    found = _version(session, model, previous) if previous else None
    if not previous or (found is not None and found.state in _LIVE_VERSION):
        return found
    query = (
        select(Version)
        .where(
            Version.model == model, Version.state == "published", col(Version.denied).is_(False), Version.number < bad
        )
        .order_by(col(Version.number).desc())
    )
    return session.exec(query).first()


def _write_gate(session: Session, rollout_id: str, record: GateRecord, now: datetime) -> None:
    """Keep every decision that was acted on, and of the others only the newest of the wave."""
    session.exec(
        delete(GateDecision).where(
            col(GateDecision.rollout_id) == rollout_id,
            col(GateDecision.wave) == record.wave,
            col(GateDecision.final).is_(False),
        )
    )
    session.add(
        GateDecision(
            rollout_id=rollout_id,
            wave=record.wave,
            at=now,
            verdict=record.decision.verdict.value,
            sentence=record.decision.sentence,
            final=record.final,
            evidence=decision.dump(record.evidence, record.decision),
        )
    )


def _write_aliases(session: Session, view: RolloutView, transition: Transition) -> None:
    if transition.deny:
        version = _version(session, view.model, view.version)
        if version is not None:
            version.denied = True
            session.add(version)
    model = session.get(Model, view.model)
    if model is None or transition.state is None:
        return
    if transition.state is RolloutState.RUNNING and model.champion != view.version:
        model.challenger = view.version
    elif transition.state is RolloutState.COMPLETED:
        model.champion, model.challenger = view.version, None
    elif transition.state in (RolloutState.ROLLING_BACK, RolloutState.CANCELLED):
        model.challenger = None if model.challenger == view.version else model.challenger
        if transition.state is RolloutState.ROLLING_BACK and model.champion == view.version:
            model.champion = max((d.back for d in view.devices if d.device in transition.restore), default=0) or None
    model.revision += 1
    session.add(model)
