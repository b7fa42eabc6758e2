"""What the agent must never forget, and its form on disk.

A journal file is two slots of `SLOT_BYTES`. A record goes to slot `seq % 2`, so a torn write damages only the one being
written and the other still holds the record before. Form of a slot, little-endian:

    magic 'WGJ1' | seq u64 | length u32 | crc32 u32 of (seq, length, body) | body: JSON | zeros

`read(write(record)) == record`; damaged, empty or foreign slots count as absent. Not here: the file (`adapters/disk/journal.py`).
"""

import struct
import zlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from wavegate_agent.core.machine_types import Command, Forgive, Quarantine, Slot

__all__ = [
    "MAX_QUARANTINED",
    "MAX_SLOTS",
    "SLOT_BYTES",
    "SLOT_BYTES_0_1",
    "Record",
    "applied",
    "best",
    "by_model",
    "decode_slot",
    "encode_slot",
    "model_of",
]

SLOT_BYTES = 16384
SLOT_BYTES_0_1 = 4096
"""Of release 0.1."""
MAX_SLOTS = 8
"""Models a journal slot has room for, with every field at its longest (asserted in a test)."""
MAX_QUARANTINED = 16
"""Oldest out first: so many different bad versions in a row is not a life a device leads."""
_HEADER = struct.Struct("<4sQII")
_MAGIC = b"WGJ1"
_RENAMED = (b'"order":', b'"assigned":')
"""A field's name in journals of release 0.1, and today's. A text cannot hold the first: its quotes are escaped."""
_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything durable about the agent's decisions.

    Attributes:
        boot: number of starts of the agent; first half of a message's (boot, seq).
        last_seq: highest assignment accepted.
        time_floor: the newest signed `issued` seen; trusted time is never before it.
        slots: model -> its machine.
        quarantined: manifest digests refused here, oldest first.
        clean: the agent was stopped in order; false while it runs.
    """

    boot: int = 0
    last_seq: int = 0
    time_floor: datetime = _EPOCH
    slots: dict[str, Slot] = field(default_factory=dict)
    quarantined: tuple[str, ...] = ()
    clean: bool = False


def applied(record: Record, name: str, slot: Slot, commands: tuple[Command, ...]) -> Record:
    """The record after one step of slot `name`: the slot itself, and the digests its commands quarantine or forgive."""
    listed = list(record.quarantined)
    for command in commands:
        if isinstance(command, Quarantine | Forgive) and command.sha256 in listed:
            listed.remove(command.sha256)
        if isinstance(command, Quarantine):
            listed.append(command.sha256)
    durable = replace(slot, due=None, retries=0)
    return replace(record, slots={**record.slots, name: durable}, quarantined=tuple(listed[-MAX_QUARANTINED:]))


def encode_slot(seq: int, record: Record) -> bytes:
    """The `SLOT_BYTES` bytes of one journal slot. Raises ValueError when the record does not fit."""
    body = msgspec.json.encode(record)
    if len(body) > SLOT_BYTES - _HEADER.size:
        raise ValueError(f"journal record of {len(body)} bytes")
    crc = zlib.crc32(struct.pack("<QI", seq, len(body)) + body)
    return (_HEADER.pack(_MAGIC, seq, len(body), crc) + body).ljust(SLOT_BYTES, b"\0")


def decode_slot(data: bytes) -> tuple[int, Record] | None:
    """(seq, record) of a journal slot, or None for anything `encode_slot` did not write whole."""
    if len(data) < _HEADER.size:
        return None
    magic, seq, length, crc = _HEADER.unpack_from(data)
    body = data[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(body) != length or zlib.crc32(struct.pack("<QI", seq, length) + body) != crc:
        return None
    try:
        return seq, msgspec.json.decode(body.replace(*_RENAMED), type=Record)
    except msgspec.DecodeError:
        return None


def model_of(slot: Slot) -> str | None:
    """The model that a slot is about; None where it never had one."""
    versions = [slot.active, *(assigned.version for assigned in (slot.assigned, slot.pending) if assigned)]
    return next((version.model for version in versions if version is not None), None)


def by_model(record: Record) -> Record:
    """The record with each slot under its model's name: release 0.1 named slots by position. Slots without a model are left out."""
    named = {model_of(slot): slot for slot in record.slots.values()}
    return replace(record, slots={model: slot for model, slot in named.items() if model is not None})


def best(data: bytes, slot_bytes: int = SLOT_BYTES) -> tuple[int, Record] | None:
    """The newest whole record of a journal file of two slots of `slot_bytes`, or None when there is none."""
    found = [decode_slot(data[:slot_bytes]), decode_slot(data[slot_bytes : 2 * slot_bytes])]
    whole = [item for item in found if item is not None]
    return max(whole, key=lambda item: item[0]) if whole else None
