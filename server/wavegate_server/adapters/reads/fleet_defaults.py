"""Fleet defaults as pages and answers tell them: those of a model, and the one that counts for a device."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, select
from sqlmodel import Session

from wavegate_server.adapters.reads.page import columns, rows
from wavegate_server.core.rollout.late_joiners import Choice, parse_choice

__all__ = ["DefaultForDevice", "DefaultRow", "default_rows", "defaults_for"]


@dataclass(frozen=True, slots=True)
class DefaultRow:
    """A default that was not cleared.

    Attributes:
        choice: which devices; `str` of it is what the command line takes.
        rollout: that left it behind; None: a person set it.
        good: its version is published and not denied.
        in_effect: besides, no newer good one is for the same devices.
    """

    id: int
    model: str
    version: int
    choice: Choice
    rollout: str | None
    set_by: str
    set_at: datetime
    good: bool
    in_effect: bool


@dataclass(frozen=True, slots=True)
class DefaultForDevice:
    """The default that counts for a device. `tried_by`: the newest rollout of the model that had it since; None: it waits."""

    model: str
    version: int
    devices: str
    tried_by: str | None


def default_rows(session: Session, model: str | None = None) -> tuple[DefaultRow, ...]:
    """All of a model, or of all models, that were not cleared, newest first."""
    default, version = columns("fleet_default"), columns("version")
    query = (
        select(default.id.table, version.state, version.denied)
        .join(version.id.table, and_(version.model == default.model, version.number == default.version))
        .where(default.cleared_at.is_(None))
        .order_by(default.id.desc())
    )
    if model is not None:
        query = query.where(default.model == model)
    found: list[DefaultRow] = []
    for row in rows(session, query):
        choice, good = parse_choice(row.choice), row.state == "published" and not row.denied
        newer = any(one.good and (one.model, one.choice) == (row.model, choice) for one in found)
        found.append(
            DefaultRow(
                id=row.id,
                model=row.model,
                version=row.version,
                choice=choice,
                rollout=row.rollout_id,
                set_by=row.set_by,
                set_at=row.set_at,
                good=good,
                in_effect=good and not newer,
            )
        )
    return tuple(found)


def defaults_for(session: Session, device: Any) -> dict[str, DefaultForDevice]:
    """By model, the default that counts for a device, given as its row."""
    labels = (device.groups or {}).get("labels") or {}
    found: dict[str, DefaultForDevice] = {}
    for row in default_rows(session):
        if row.good and row.model not in found and row.choice.fits(device.hardware_class, device.site, labels):
            found[row.model] = DefaultForDevice(
                row.model, row.version, str(row.choice), _tried_by(session, device.id, row)
            )
    return found


def _tried_by(session: Session, device_id: str, default: DefaultRow) -> str | None:
    member, rollout = columns("rollout_device"), columns("rollout")
    query = (
        select(rollout.id)
        .join(member.rollout_id.table, member.rollout_id == rollout.id)
        .where(member.device_id == device_id, rollout.model == default.model, rollout.created_at >= default.set_at)
        .order_by(rollout.created_at.desc())
        .limit(1)
    )
    found = rows(session, query)
    return str(found[0][0]) if found else None
