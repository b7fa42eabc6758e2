"""Reading the models of devices: what each says it runs, and which of them a line of the fleet table shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Subquery, case, func, select
from sqlmodel import Session

from wavegate_server.adapters.reads.page import columns, rows, scalar
from wavegate_shared.states import DeviceState

__all__ = ["SlotRow", "running_on", "shown", "shown_model", "slot_rows", "slot_totals"]

_RESTING = (DeviceState.IDLE, DeviceState.COMMITTED)
_TROUBLED = (DeviceState.REVERTING, DeviceState.FALLBACK, DeviceState.BROKEN)


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One model of a device.

    Attributes:
        slot: the model's name too; kept for scripts of release 0.1.
        version: what the device says it runs; 0: nothing of this model.
        assigned_version, seq: what it was assigned, and by which assignment; 0: nothing.
        removed: it was assigned to be taken away.
    """

    slot: str
    model: str
    version: int
    standby_version: int
    state: str
    sha256: str
    assigned_version: int = 0
    seq: int = 0
    rollout_id: str | None = None
    wave: int | None = None
    removed: bool = False

    @property
    def troubled(self) -> bool:
        """Whether it cannot serve, or is on its way back."""
        return self.state in _TROUBLED

    @property
    def updating(self) -> bool:
        """Whether an assignment is being worked on."""
        return self.state not in ("", *_RESTING, *_TROUBLED)


def slot_rows(session: Session, devices: Iterable[str]) -> dict[str, tuple[SlotRow, ...]]:
    """The models of some devices, each device's by name. A model that neither runs nor is assigned is left out."""
    slot = columns("device_slot")
    query = select(slot.device_id.table).where(slot.device_id.in_(list(devices))).order_by(slot.device_id, slot.model)
    found: dict[str, list[SlotRow]] = {}
    for row in rows(session, query):
        found.setdefault(row.device_id, []).append(_slot_row(row))
    return {name: tuple(slots) for name, slots in found.items()}


def shown(slots: Iterable[SlotRow], model: str | None = None) -> SlotRow:
    """The slot that stands for its device: of `model`, else one in trouble, else one being updated, else the first that runs."""
    known = list(slots)
    order = [
        (slot for slot in known if slot.model == model),
        (slot for slot in known if slot.troubled),
        (slot for slot in known if slot.updating),
        (slot for slot in known if slot.version),
        iter(known),
    ]
    return next((slot for group in order for slot in group), SlotRow("", "", 0, 0, "", ""))


def shown_model(session: Session, device_id: str) -> str:
    """The model that a device's page shows first; empty where it never had one."""
    model = shown(slot_rows(session, [device_id]).get(device_id, ())).model
    if model:
        return model
    rollup = columns("device_rollup")  # it serves nothing now; what it served last has a history
    last = select(rollup.model).where(rollup.device_id == device_id).order_by(rollup.bucket.desc()).limit(1)
    return str(scalar(session, last) or "")


def slot_totals() -> Subquery:
    """Per device: `troubled` and `updating` as 0 or 1, and `version` above 0 where any model serves."""
    slot = columns("device_slot")
    busy = (slot.state != "") & slot.state.not_in(_RESTING) & slot.state.not_in(_TROUBLED)
    return (
        select(
            slot.device_id,
            func.max(case((slot.state.in_(_TROUBLED), 1), else_=0)).label("troubled"),
            func.max(case((busy, 1), else_=0)).label("updating"),
            func.max(slot.version).label("version"),
        )
        .group_by(slot.device_id)
        .subquery()
    )


def running_on(device_id: Any, model: str, version: int | None) -> ColumnElement[bool]:
    """Whether the device says that it runs `model`, in this version where one is given."""
    slot = columns("device_slot")
    query = select(slot.device_id).where(slot.device_id == device_id, slot.model == model)
    return query.where(slot.version > 0 if version is None else slot.version == version).exists()


def _slot_row(row: Any) -> SlotRow:
    return SlotRow(
        slot=row.model,
        model=row.model,
        version=row.version or 0,
        standby_version=row.standby_version or 0,
        state=row.state or "",
        sha256=row.sha256 or "",
        assigned_version=row.assigned_version or 0,
        seq=row.seq or 0,
        rollout_id=row.rollout_id,
        wave=row.wave,
        removed=bool(row.removed),
    )
