"""Rollouts as the engine sees them: which there are to look at, and one whole, read from the tables.

Not here: creating one (`rollouts`), writing what a step decided (`rollout_transitions`), reading for pages (`adapters/reads/rollouts`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, or_, select, update
from sqlmodel import Session, col

from wavegate_server.adapters.database.bulk import chunks
from wavegate_server.adapters.database.tables import Device, DeviceSlot, Rollout, RolloutDevice, RolloutWave, Version
from wavegate_server.core.gate.policy import parse_policy
from wavegate_server.core.rollout.plan import UNFINISHED, DeviceView, RolloutView, WaveView
from wavegate_server.core.sentences import Sentence, stored_text
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import decode_manifest
from wavegate_shared.states import AssignmentState, RolloutState, WaveState

__all__ = ["Mark", "load_view", "marks", "touch"]

_LOOKED_AT = [state.value for state in sorted(UNFINISHED - {RolloutState.DRAFT})]
_ROW, _SLOT, _DEVICE = RolloutDevice.__table__.c, DeviceSlot.__table__.c, Device.__table__.c  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Mark:
    """What moves when something about a rollout does: `revision` by decisions, `touched` by devices' words."""

    id: str
    revision: int
    touched: int


def marks(session: Session, now: datetime) -> list[Mark]:
    """Of the rollouts that the engine has to look at: the unfinished ones, oldest first, then those completed and still watched."""
    watched = and_(col(Rollout.state) == RolloutState.COMPLETED.value, col(Rollout.next_at) > now)
    query = (
        select(col(Rollout.id), col(Rollout.revision), col(Rollout.touched))
        .where(or_(col(Rollout.state).in_(_LOOKED_AT), watched))
        .order_by(col(Rollout.state) == RolloutState.COMPLETED.value, col(Rollout.created_at), col(Rollout.id))
    )
    return [Mark(*row) for row in session.execute(query)]


def touch(session: Session, devices: Iterable[str]) -> None:
    """Something changed about these devices: the rollouts that they are in are to be looked at."""
    for names in chunks(devices):
        inside = select(_ROW.rollout_id).where(_ROW.device_id.in_(names))
        unfinished = (col(Rollout.id).in_(inside), col(Rollout.state).in_(_LOOKED_AT))
        session.execute(update(Rollout).where(*unfinished).values(touched=col(Rollout.touched) + 1))


def load_view(session: Session, rollout_id: str, *, since: datetime, lock: bool = False) -> RolloutView:
    """The rollout as `core.rollout` sees it.

    Args:
        session: of a read, or of the transaction that will write the step.
        rollout_id: which.
        since: when this controller took over; deadlines before it get the policy's grace.
        lock: take the rollout's row lock (PostgreSQL; SQLite's writers queue anyway).

    Raises:
        UsageError: `not_found`.
    """
    session.flush()
    query = select(Rollout).where(col(Rollout.id) == rollout_id)
    rollout = session.execute(query.with_for_update() if lock else query).scalars().first()
    if rollout is None:
        raise UsageError("not_found", Sentence("missing.rollout", name=repr(rollout_id)))
    waves = select(RolloutWave).where(col(RolloutWave.rollout_id) == rollout_id).order_by(col(RolloutWave.number))
    manifest = select(col(Version.manifest)).where(
        col(Version.model) == rollout.model, col(Version.number) == rollout.version
    )
    return RolloutView(
        id=rollout.id,
        model=rollout.model,
        version=rollout.version,
        state=RolloutState(rollout.state),
        wave=rollout.wave,
        policy=parse_policy(rollout.policy),
        waves=tuple(_wave_view(row) for row in session.execute(waves).scalars()),
        devices=tuple(_device_views(session, rollout)),
        since=since,
        slo=decode_manifest(bytes(session.execute(manifest).scalar_one())).slo,
        reason=stored_text(rollout.reason, rollout.said),
        late=rollout.late,
        revision=rollout.revision,
        touched=rollout.touched,
    )


def _wave_view(row: RolloutWave) -> WaveView:
    return WaveView(
        number=row.number,
        name=row.name,
        state=WaveState(row.state),
        size=row.size,
        started_at=row.started_at,
        soak_started_at=row.soak_started_at,
        approved_by=row.approved_by,
    )


def _device_views(session: Session, rollout: Rollout) -> Iterator[DeviceView]:
    """One query for all devices; of a device that is not registered any more nothing but the row is left."""
    slot = and_(_SLOT.device_id == _ROW.device_id, _SLOT.model == rollout.model)
    query = (
        select(
            _ROW.device_id, _ROW.wave, _ROW.state, _ROW.previous_version, _ROW.published_at, _ROW.accepted_at,
            _ROW.swapped_at, _ROW.deadline, _ROW.code, _ROW.reason, _ROW.said, _ROW.rollback_seq, _ROW.live_requests,
            _ROW.back_at, _SLOT.rollout_id.label("slot_rollout"), _SLOT.version, _SLOT.assigned_version,
            _DEVICE.last_seen, _DEVICE.state.label("registered"),
        )
        .outerjoin(DeviceSlot, slot)
        .outerjoin(Device, _DEVICE.id == _ROW.device_id)
        .where(_ROW.rollout_id == rollout.id)
        .order_by(_ROW.wave, _ROW.device_id)
    )  # fmt: skip
    good = _good_versions(session, rollout.model)
    below = max((number for number in good if number < rollout.version), default=0)
    others = good - {rollout.version}
    for row in session.execute(query):
        previous = row.previous_version
        undecided = rollout.back_from is not None and (row.back_at is None or row.back_at < rollout.back_from)
        yield DeviceView(
            row.device_id,
            row.wave,
            AssignmentState(row.state),
            previous,
            row.slot_rollout == rollout.id,
            row.published_at,
            row.accepted_at,
            row.swapped_at,
            row.deadline,
            row.last_seen,
            row.code,
            stored_text(row.reason, row.said) if row.reason else "",
            row.rollback_seq,
            row.version or 0,
            row.assigned_version or 0,
            previous if previous in others else below,
            row.registered in (None, "revoked"),
            row.live_requests,
            undecided,
        )


def _good_versions(session: Session, model: str) -> set[int]:
    query = select(col(Version.number)).where(
        col(Version.model) == model, col(Version.state) == "published", col(Version.denied).is_(False)
    )
    return set(session.execute(query).scalars())
