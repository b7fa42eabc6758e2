"""Fleet defaults in the tables: set and clear them, and find the devices that wait for one.

A default is in effect while it is not cleared and its version is published and not denied: so a rollback of a version brings the
default before it into effect again. Not here: reading them (`adapters/reads/fleet_defaults`), when one looks (`services/late_joiners`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, exists, false, func, not_, or_, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from wavegate_server.adapters.database.tables import (
    Device,
    DeviceSlot,
    FleetDefault,
    Rollout,
    RolloutDevice,
    RolloutWave,
)
from wavegate_server.adapters.reads.fleet_defaults import default_rows
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.rollouts import MAX_MODELS, check_offered, create_rollout, find_version
from wavegate_server.core.rollout.late_joiners import APPROVED_BY, Choice, late_policy, parse_choice
from wavegate_server.core.rollout.plan import UNFINISHED
from wavegate_shared.errors import UsageError

__all__ = [
    "clear_default",
    "defaults_in_effect",
    "give_default",
    "leave_default",
    "set_default",
    "waiting_devices",
]

_ONLINE = timedelta(minutes=10)
"""A device that was not heard of for longer would hold its rollout up; it gets the default when it is back."""
_KEPT = 5
"""So many defaults for the same devices are kept, to go back to when versions are denied; older ones are cleared."""
_MOST = 100
"""So many devices in one rollout of late joiners; the others come next."""


def set_default(
    session: Session,
    *,
    model: str,
    version: int,
    choice: Choice,
    actor: str,
    now: datetime,
    ahead: bool = False,
) -> FleetDefault:
    """Set what devices that fit get from now on.

    Args:
        session: of a write transaction.
        model: what.
        version: of it.
        choice: which devices.
        actor: who, for the audit log.
        now: aware UTC.
        ahead: also where no registered device fits yet.

    Raises:
        UsageError: `not_found` for the version; `conflict` when it is not published or was denied, or no device fits.
    """
    check_offered(find_version(session, model, version))
    fits = session.execute(select(func.count()).select_from(Device).where(*_fits(choice))).scalar_one()
    if not fits and not ahead:
        raise UsageError("conflict", f"no registered device fits {str(choice)!r}; --ahead sets it for devices to come")
    return _add(session, model, version, choice, rollout_id=None, policy={}, actor=actor, now=now)


def leave_default(session: Session, rollout: Rollout, now: datetime) -> None:
    """What a completed rollout leaves behind for the devices it was for; nothing where it was for single devices."""
    if rollout.choice is None or rollout.late or rollout.policy.get("late_joiners") == "ignore":
        return
    choice = parse_choice(rollout.choice)
    _add(
        session,
        rollout.model,
        rollout.version,
        choice,
        rollout_id=rollout.id,
        policy=rollout.policy,
        actor=rollout.created_by,
        now=now,
    )


def clear_default(session: Session, number: int, *, actor: str, now: datetime) -> FleetDefault:
    """End a default; done twice, it changes nothing. Raises UsageError `not_found`."""
    row = session.get(FleetDefault, number)
    if row is None:
        raise UsageError("not_found", f"no fleet default {number}")
    if row.cleared_at is None:
        row.cleared_at = now
        session.add(row)
        _note(session, "fleet.default_clear", row, actor, now)
    return row


def defaults_in_effect(session: Session) -> dict[str, list[FleetDefault]]:
    """By model, newest first: the first that fits a device is the device's."""
    found: dict[str, list[FleetDefault]] = {}
    for row in default_rows(session):
        if row.in_effect:
            found.setdefault(row.model, []).append(session.get_one(FleetDefault, row.id))
    return found


def waiting_devices(session: Session, default: FleetDefault, newer: Sequence[Choice], now: datetime) -> list[str]:
    """Devices that are online and wait for this default, in order, at most `_MOST`.

    Not among them: a device for which a newer default counts; that runs or was assigned this version or a later one, or had the
    model taken away; that any rollout of the model reached since the default was set, or has now; that has no room.
    """
    if any(not _fits(choice) for choice in newer):
        return []
    model, version = default.model, default.version
    slot = and_(col(DeviceSlot.device_id) == Device.id, col(DeviceSlot.model) == model)
    beside = aliased(DeviceSlot)
    in_rollout = (
        select(col(RolloutDevice.device_id))
        .join(Rollout, col(Rollout.id) == RolloutDevice.rollout_id)
        .where(col(RolloutDevice.device_id) == Device.id, col(Rollout.model) == model)
        .where(or_(col(Rollout.created_at) >= default.set_at, col(Rollout.state).in_([s.value for s in UNFINISHED])))
    )
    others = (
        select(func.count())
        .select_from(beside)
        .where(col(beside.device_id) == Device.id, col(beside.model) != model)
        .where(or_(col(beside.version) > 0, col(beside.entry).is_not(None)))
    )
    query = (
        select(col(Device.id))
        .outerjoin(DeviceSlot, slot)
        .where(
            col(Device.state) == "active",
            col(Device.last_seen) > now - _ONLINE,
            func.coalesce(DeviceSlot.version, 0) < version,
            func.coalesce(DeviceSlot.assigned_version, 0) < version,
            not_(func.coalesce(DeviceSlot.removed, false())),
            *_fits(parse_choice(default.choice)),
            *(not_(func.coalesce(and_(*_fits(choice)), false())) for choice in newer),
            ~exists(in_rollout),
            others.scalar_subquery() < MAX_MODELS,
        )
        .order_by(col(Device.id))
        .limit(_MOST)
    )
    return [str(name) for (name,) in session.execute(query)]


def give_default(session: Session, default: FleetDefault, devices: Sequence[str], now: datetime) -> str:
    """Begin a rollout of late joiners to these devices; gives its id."""
    rollout_id = create_rollout(
        session,
        model=default.model,
        version=default.version,
        devices=devices,
        policy=late_policy(default.policy),
        actor=APPROVED_BY,
        now=now,
    )
    session.flush()
    rollout = session.get_one(Rollout, rollout_id)
    rollout.late = True
    wave = session.get_one(RolloutWave, (rollout_id, 0))
    wave.approved_by = APPROVED_BY
    session.add_all((rollout, wave))
    return rollout_id


def _add(
    session: Session,
    model: str,
    version: int,
    choice: Choice,
    *,
    rollout_id: str | None,
    policy: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> FleetDefault:
    row = FleetDefault(
        model=model,
        choice=msgspec.to_builtins(choice),
        version=version,
        rollout_id=rollout_id,
        policy=dict(policy),
        set_by=actor,
        set_at=now,
    )
    session.add(row)
    session.flush()
    _note(session, "fleet.default_set", row, actor, now)
    same = [one for one in default_rows(session, model) if one.choice == choice]
    for old in same[_KEPT:]:
        session.get_one(FleetDefault, old.id).cleared_at = now
    return row


def _note(session: Session, action: str, row: FleetDefault, actor: str, now: datetime) -> None:
    detail = {"devices": str(parse_choice(row.choice)), "version": row.version, "rollout": row.rollout_id}
    audit.append(session, actor=actor, action=action, subject=f"model/{row.model}", now=now, detail=detail)


def _fits(choice: Choice) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if choice.hardware_class:
        wanted.append(col(Device.hardware_class) == choice.hardware_class)
    if choice.site:
        wanted.append(col(Device.site) == choice.site)
    labels = [(col(Device.groups)[("labels", key)].as_string(), value) for key, value in choice.labels.items()]
    return wanted + [label == value for label, value in labels]
