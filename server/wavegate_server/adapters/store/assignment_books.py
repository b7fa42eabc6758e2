"""What the books say about devices that are to get an assignment, read and written for many devices at once.

A batch reads the devices' highest numbers and slots with a few statements, changes them in memory, and `write` puts slots,
assignments and outbox back with one statement a table. Not here: what stands in an assignment (`assignments`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.bulk import chunks, insert_new, upsert_all
from wavegate_server.adapters.database.tables import Device, DeviceAssignment, DeviceSlot, Outbox
from wavegate_shared.topics import Topics
from wavegate_shared.wire import Assign, encode

__all__ = ["Books", "DeviceBook", "Sealed", "SlotBook", "queue"]


@dataclass(slots=True)
class SlotBook:
    """One model of a device: the columns of a `DeviceSlot` that an assignment is made from."""

    version: int = 0
    assigned_version: int = 0
    seq: int = 0
    rollout_id: str | None = None
    wave: int | None = None
    removed: bool = False
    entry: bytes | None = None
    state: str = ""
    changed: bool = False


@dataclass(slots=True)
class DeviceBook:
    """One device. `seq`: the highest number it was given or says it accepted. `label`: what an agent of release 0.1 calls its slot."""

    seq: int = 0
    label: str = ""
    slots: dict[str, SlotBook] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A signed assignment on its way."""

    device: str
    seq: int
    envelope: bytes
    issued: datetime
    expires: datetime
    dedup: str


class Books:
    """The devices of one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, DeviceBook] = {}
        self._sealed: list[Sealed] = []

    def load(self, devices: Iterable[str]) -> None:
        """Read these devices at once; one that is asked for without it is read by itself."""
        missing = [device for device in dict.fromkeys(devices) if device not in self._known]
        if not missing:
            return
        self._session.flush()
        for names in chunks(missing):
            known = {name: DeviceBook() for name in names}
            said = select(Device.id, Device.assignment_seq, Device.slot_label).where(col(Device.id).in_(names))
            for name, seq, label in self._session.exec(said):
                known[name].seq, known[name].label = seq, label
            given = select(DeviceAssignment.device_id, DeviceAssignment.seq)
            for name, seq in self._session.exec(given.where(col(DeviceAssignment.device_id).in_(names))):
                known[name].seq = max(known[name].seq, seq)
            for name, model, *rest in self._session.connection().execute(
                _SLOTS.where(col(DeviceSlot.device_id).in_(names))
            ):
                known[name].slots[model] = SlotBook(*rest)
            self._known.update(known)

    def of(self, device: str) -> DeviceBook:
        """One device's book."""
        self.load((device,))
        return self._known[device]

    def put(self, sealed: Sealed) -> None:
        """An assignment in the place of the one before, to be queued."""
        self._sealed.append(sealed)

    def write(self, topics: Topics, now: datetime) -> None:
        """Slots that changed, assignments and outbox, in the caller's transaction."""
        slots = [
            {
                "device_id": device, "model": model, "version": slot.version, "sha256": "", "standby_version": 0, "state": slot.state,
                "assigned_version": slot.assigned_version, "seq": slot.seq, "rollout_id": slot.rollout_id, "wave": slot.wave,
                "removed": slot.removed, "entry": slot.entry,
            }
            for device, book in self._known.items()
            for model, slot in book.slots.items()
            if slot.changed
        ]  # fmt: skip
        upsert_all(self._session, DeviceSlot, ("device_id", "model"), slots, keep=_SAID)
        rows = [
            {
                "device_id": one.device, "seq": one.seq, "envelope": one.envelope, "issued_at": one.issued,
                "expires_at": one.expires, "acknowledged": False,
            }
            for one in self._sealed
        ]  # fmt: skip
        upsert_all(self._session, DeviceAssignment, ("device_id",), rows)
        queue(self._session, topics, [(one.device, one.envelope, one.dedup) for one in self._sealed], now)
        self._known.clear()
        self._sealed.clear()


_SAID = ("version", "sha256", "standby_version", "state")
"""Columns that are the device's own word."""
_TABLE = DeviceSlot.__table__.c  # type: ignore[attr-defined]
_SLOTS = select_columns(
    _TABLE.device_id,
    _TABLE.model,
    _TABLE.version,
    _TABLE.assigned_version,
    _TABLE.seq,
    _TABLE.rollout_id,
    _TABLE.wave,
    _TABLE.removed,
    _TABLE.entry,
    _TABLE.state,
)


def queue(session: Session, topics: Topics, envelopes: Iterable[tuple[str, bytes, str]], now: datetime) -> int:
    """Put signed assignments (device, envelope, dedup) into the outbox, but those whose `dedup` was there already; how many."""
    rows = [
        {
            "dedup": dedup,
            "topic": topics.cmd(device),
            "payload": encode(Assign(envelope=msgspec.Raw(envelope))),
            "created_at": now,
        }
        for device, envelope, dedup in envelopes
    ]
    return insert_new(session, Outbox, "dedup", rows)
