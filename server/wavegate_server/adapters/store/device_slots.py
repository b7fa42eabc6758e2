"""The models of a device in the tables: what it says it runs of each. Not here: what it is assigned (`assignments`)."""

from collections.abc import Mapping

from sqlmodel import Session, select

from wavegate_server.adapters.database.tables import Device, DeviceSlot
from wavegate_shared.states import DeviceState
from wavegate_shared.wire import Report, Running, StateEvent

__all__ = ["note_report", "note_state", "running_versions", "say_inventory", "slots_of"]

_NOTHING = Running(model="", version=0)


def slots_of(session: Session, device_id: str) -> dict[str, DeviceSlot]:
    """The rows of one device by model."""
    session.flush()
    found = session.exec(select(DeviceSlot).where(DeviceSlot.device_id == device_id))
    return {row.model: row for row in found}


def running_versions(session: Session, devices: list[str], model: str, batch: int = 500) -> dict[str, int]:
    """Device -> version of `model` that it says it runs; devices that run none are left out."""
    found: dict[str, int] = {}
    for at in range(0, len(devices), batch):
        query = select(DeviceSlot.device_id, DeviceSlot.version).where(
            DeviceSlot.model == model,
            DeviceSlot.device_id.in_(devices[at : at + batch]),  # type: ignore[attr-defined]
        )
        found.update({name: version for name, version in session.exec(query) if version})
    return found


def say_inventory(session: Session, device: Device, running: Mapping[str, Running]) -> None:
    """Write the device's own word on all its models, by the name it gives each slot; what it leaves out is gone."""
    known = slots_of(session, device.id)
    by_model = {slot.model: slot for slot in running.values() if slot.model}
    device.slot_label = ""
    for label, slot in running.items():
        if (
            label != slot.model and len(running) == 1
        ):  # an agent of release 0.1 has one slot, named otherwise than its model
            device.slot_label = label
    for model in {*known, *by_model}:
        _write(session, known.get(model), device.id, model, by_model.get(model, _NOTHING))


def note_state(session: Session, device: Device, event: StateEvent) -> None:
    """A state message: the model's machine is in that state now. From the swap on the new version is what answers."""
    row = session.get(DeviceSlot, (device.id, event.model))
    if row is not None:
        if event.state is DeviceState.PROBATION and event.version not in (0, row.version):
            row.standby_version, row.version, row.sha256 = row.version, event.version, ""
        row.state = event.state.value
        session.add(row)


def note_report(session: Session, device: Device, report: Report) -> None:
    """A report says what is active now; the next hello says the rest."""
    if not report.model:
        return
    rows = slots_of(session, device.id)
    row = rows.get(report.model)
    foreign = report.slot not in ("", report.model) and report.active_version != report.version
    if row is None and foreign and any(other.version == report.active_version for other in rows.values()):
        return  # an agent of release 0.1 names in `active_version` the model that goes on serving, not the refused one
    same = row is not None and row.version == report.active_version
    sha256 = report.sha256 if report.active_version == report.version else row.sha256 if row and same else ""
    said = Running(
        model=report.model,
        version=report.active_version,
        sha256=sha256,
        standby_version=row.standby_version if row is not None and row.standby_version != report.active_version else 0,
    )
    _write(session, row, device.id, report.model, said, state=row.state if row is not None else "idle")


def _write(
    session: Session, row: DeviceSlot | None, device_id: str, model: str, said: Running, *, state: str | None = None
) -> None:
    if row is None:
        row = DeviceSlot(device_id=device_id, model=model)
    row.version, row.sha256, row.standby_version = said.version, said.sha256, said.standby_version
    row.state = said.state.value if state is None else state
    if not said.version and row.entry is None and not row.removed and not said.model:
        if row in session:
            session.delete(row)
        return
    session.add(row)
