"""The rows of a rollout's devices, many at once: read with one statement, changed in memory, written with one."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlmodel import Session

from wavegate_server.adapters.database.bulk import chunks, update_all
from wavegate_server.adapters.database.tables import RolloutDevice

__all__ = ["DeviceRow", "device_rows", "write_rows"]


@dataclass(slots=True)
class DeviceRow:
    """What a decision may change of a `RolloutDevice`, and what it is found by."""

    device_id: str
    wave: int
    attempt: int
    state: str
    previous_version: int
    assignment_seq: int
    rollback_seq: int
    published_at: datetime | None
    finished_at: datetime | None
    deadline: datetime | None
    back_at: datetime | None
    code: str | None
    reason: str
    said: dict[str, Any]
    live_requests: int | None


_COLUMNS = [RolloutDevice.__table__.c[name] for name in DeviceRow.__dataclass_fields__]  # type: ignore[attr-defined]


def device_rows(session: Session, rollout_id: str, devices: Iterable[str]) -> dict[str, DeviceRow]:
    """The rows of these devices by name, locked where the database locks rows."""
    session.flush()
    table = RolloutDevice.__table__.c  # type: ignore[attr-defined]
    found: dict[str, DeviceRow] = {}
    for names in chunks(devices):
        query = select(*_COLUMNS).where(table.rollout_id == rollout_id, table.device_id.in_(names)).with_for_update()
        found.update({row[0]: DeviceRow(*row) for row in session.connection().execute(query)})
    return found


def write_rows(session: Session, rollout_id: str, rows: Iterable[DeviceRow]) -> None:
    """Write them back."""
    names = tuple(DeviceRow.__dataclass_fields__)
    values = [{"rollout_id": rollout_id, **{name: getattr(row, name) for name in names}} for row in rows]
    update_all(session, RolloutDevice, ("rollout_id", "device_id"), values)
