"""Writing a transition of a rollout, or one part of it, in the caller's transaction.

Rollout, wave and device rows, signed assignments, outbox, gate decision, deny mark, aliases, audit row and revision stand or fall
together, so after a kill the books are as before the part or after it. Not here: the rules (`core/rollout`), the order of parts
(`core/rollout/parts`, `rollout_parts`), the rows of devices (`rollout_rows`).
"""

from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, select

from wavegate_server.adapters.database.tables import (
    GateDecision,
    Model,
    Rollout,
    RolloutWave,
    Version,
)
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.assignments import AssignmentBatch, AssignmentDraft, AssignmentWriter
from wavegate_server.adapters.store.fleet_defaults import leave_default
from wavegate_server.adapters.store.rollout_rows import DeviceRow, device_rows, write_rows
from wavegate_server.core.gate import decision
from wavegate_server.core.rollout.after import watch_until
from wavegate_server.core.rollout.plan import DeviceChange, GateRecord, RolloutView, Transition, WaveChange
from wavegate_server.core.rollout.step import holders
from wavegate_server.core.sentences import said_of
from wavegate_shared.states import AssignmentState, RolloutState, WaveState

__all__ = ["TransitionWriter", "write_transition"]

_ENDED = frozenset({RolloutState.COMPLETED, RolloutState.ROLLED_BACK, RolloutState.CANCELLED})
_LIVE_VERSION = frozenset({"published"})


def write_transition(
    session: Session, view: RolloutView, transition: Transition, orders: AssignmentWriter, *, actor: str, now: datetime
) -> None:
    """Write everything `transition` decided about `view`, which was read in this same transaction."""
    if not transition.empty:
        TransitionWriter(view, orders, actor=actor, now=now).write(session, transition)


class TransitionWriter:
    """Writes transitions of one view, or the parts of one."""

    def __init__(self, view: RolloutView, orders: AssignmentWriter, *, actor: str, now: datetime) -> None:
        self._view = view
        self._orders = orders
        self._actor = actor
        self._now = now
        self._known = {device.device: device for device in view.devices}
        self._back = {device.device: device.back for device in holders(view)}

    def write(self, session: Session, transition: Transition) -> int:
        """Write one transition in the caller's transaction; gives the rollout's revision after it.

        A device whose row says something else than the view did is passed over: its word came in between, and the next step sees it.
        """
        view, now = self._view, self._now
        rollout = session.get_one(Rollout, view.id)
        _write_rollout(rollout, transition, now)
        if transition.state is not None:
            rollout.next_at = watch_until(view, now) if transition.state is RolloutState.COMPLETED else None
        if transition.state is RolloutState.ROLLING_BACK:
            rollout.back_from = now
        for wave in transition.waves:
            _write_wave(session, view.id, wave, now)
        self._write_devices(session, rollout, transition)
        if transition.gate is not None:
            _write_gate(session, view.id, transition.gate, now)
        if not rollout.late:
            _write_aliases(session, view, transition)
        if transition.state is RolloutState.COMPLETED:
            leave_default(session, rollout, now)
        session.add(rollout)
        self._note(session, transition)
        return rollout.revision

    def _write_devices(self, session: Session, rollout: Rollout, transition: Transition) -> None:
        changes = {change.device: change for change in transition.devices}
        names = dict.fromkeys((*changes, *transition.publish, *transition.restore))
        if not names:
            return
        rows = {
            name: row
            for name, row in device_rows(session, self._view.id, names).items()
            if self._is_as_known(name, row)
        }
        for name, change in changes.items():
            if name in rows:
                _write_device(rows[name], change, self._now)
        version_of = _Versions(session, self._view)
        abort = transition.action == "rollout.abort"
        reason = transition.reason or rollout.reason
        with self._orders.batch(session, self._now) as batch:
            batch.load(name for name in (*transition.publish, *transition.restore) if name in rows)
            for name in transition.publish:
                if name in rows:
                    self._publish(batch, rows[name], version_of(self._view.version))
            for name in transition.restore:
                if name in rows:
                    back = None if abort else self._back.get(name)
                    way = version_of.way_back(rows[name].previous_version) if back is None else version_of(back)
                    self._restore(batch, rows[name], way, reason)
        for row in rows.values():
            if rollout.back_from is not None:
                row.back_at = self._now
        write_rows(session, self._view.id, rows.values())

    def _is_as_known(self, name: str, row: DeviceRow) -> bool:
        known = self._known[name]
        return row.state == known.state.value and row.rollback_seq == known.rollback_seq

    def _publish(self, batch: AssignmentBatch, row: DeviceRow, version: Version | None) -> None:
        view = self._view
        slot = batch.slot(row.device_id, view.model)
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
        row.published_at = self._now
        row.live_requests = None
        row.deadline = self._now + timedelta(seconds=view.policy.deadline_s)
        row.reason, row.said = "", {}

    def _restore(self, batch: AssignmentBatch, row: DeviceRow, version: Version | None, reason: str) -> None:
        order = AssignmentDraft(
            version=version,
            model=self._view.model,
            rollout=self._view.id,
            wave=row.wave,
            reason=reason[:400],
            attempt=row.attempt,
            allow_older=True,
            probation=self._view.policy.probation,
        )
        row.rollback_seq = batch.give(row.device_id, order)

    def _note(self, session: Session, transition: Transition) -> None:
        if not transition.action:
            audit.bump_revision(session)
            return
        detail = {
            "sentence": str(transition.sentence),
            "said": said_of(transition.sentence),
            "publish": len(transition.publish),
            "restore": len(transition.restore),
        }
        subject = f"rollout/{self._view.id}"
        audit.append(
            session, actor=self._actor, action=transition.action, subject=subject, now=self._now, detail=detail
        )


def _is_decision(transition: Transition) -> bool:
    """Whether it says anything about the rollout itself."""
    rows = Transition(devices=transition.devices, publish=transition.publish, restore=transition.restore)
    return transition != rows


def _write_rollout(rollout: Rollout, transition: Transition, now: datetime) -> None:
    if _is_decision(transition):
        rollout.revision += 1
    else:  # more devices of one that was written already
        rollout.touched += 1
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


def _write_device(row: DeviceRow, change: DeviceChange, now: datetime) -> None:
    row.reason, row.said = str(change.reason), said_of(change.reason)
    if change.code is not None:
        row.code = change.code
    if change.deadline is not None:
        row.deadline = change.deadline
    if change.state is not None:
        row.state = change.state.value
        if change.state in (AssignmentState.SKIPPED, AssignmentState.TIMED_OUT):
            row.finished_at = now


def _version(session: Session, model: str, number: int) -> Version | None:
    return session.exec(select(Version).where(Version.model == model, Version.number == number)).first()


class _Versions:
    """Versions of the rollout's model, each read once."""

    def __init__(self, session: Session, view: RolloutView) -> None:
        self._session = session
        self._view = view
        self._known: dict[int, Version | None] = {}

    def __call__(self, number: int) -> Version | None:
        if number not in self._known:
            self._known[number] = _version(self._session, self._view.model, number)
        return self._known[number]

    def way_back(self, previous: int) -> Version | None:
        """The device's previous version; where that was revoked since, the newest good one below the bad one."""
        found = self(previous) if previous else None
        if not previous or (found is not None and found.state in _LIVE_VERSION):
            return found
        query = (
            select(Version)
            .where(
                Version.model == self._view.model,
                Version.state == "published",
                col(Version.denied).is_(False),
                Version.number < self._view.version,
            )
            .order_by(col(Version.number).desc())
        )
        return self._session.exec(query).first()


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
            back = {device.device for device in holders(view)} or set(transition.restore)
            model.champion = max((device.back for device in view.devices if device.device in back), default=0) or None
    model.revision += 1
    session.add(model)
