"""Signed assignments, one per device, kept as the device's desired state and queued in the outbox.

Whatever a device is told, it is told by an assignment with a `seq` above every earlier one; the newest is stored, answers every
hello, is sent again until it is acknowledged, and is signed anew before it expires. It names the version of every model of the
device: one `DeviceSlot` row a model says which, and a change of one model leaves the entries of the others as they are. All of it
happens in the caller's transaction. Not here: who gets which version (`core/rollout/step`), sending (`engine`).

Source: docs/adr/0002-two-repositories.md (director), docs/adr/0010-rules-for-every-broker.md (no retained messages).
"""

import base64
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.tables import Device, DeviceAssignment, DeviceSlot, Outbox, Version
from wavegate_server.adapters.store.device_slots import slots_of
from wavegate_shared.assignment import Assignment, Probation, Removal, SlotAssignment
from wavegate_shared.manifest import target_path
from wavegate_shared.topics import Topics
from wavegate_shared.wire import Assign, encode

__all__ = ["AssignmentBatch", "AssignmentDraft", "AssignmentWriter", "MetadataVersions", "Sealer", "enqueue"]

_TTL = timedelta(days=14)
_RENEW_BELOW = timedelta(days=7)
_ONLINE = timedelta(minutes=10)


class Sealer(Protocol):
    """Signs assignments: `adapters/trust/director.Director`."""

    def seal(self, assignment: Assignment) -> bytes:
        """The assignment in its envelope."""


class MetadataVersions(Protocol):
    """Knows which metadata a device must have seen: `adapters/trust/image_repository.ImageRepository`."""

    def meta_min(self, model: str) -> dict[str, int]:
        """Role -> lowest acceptable version."""


@dataclass(frozen=True, slots=True)
class AssignmentDraft:
    """What one device shall run of one model. `allow_older` makes it a rollback.

    Attributes:
        version: None: what the device says it runs of this model, or nothing of it where it says nothing.
    """

    version: Version | None
    model: str
    rollout: str | None
    wave: int | None
    reason: str
    attempt: int = 1
    allow_older: bool = False
    probation: Probation = field(default_factory=Probation)


class AssignmentWriter:
    """Writes assignments; opened per transaction with `batch`."""

    def __init__(self, sealer: Sealer, metadata: MetadataVersions, topics: Topics) -> None:
        self._sealer = sealer
        self._metadata = metadata
        self._topics = topics

    @contextmanager
    def batch(self, session: Session, now: datetime) -> Iterator["AssignmentBatch"]:
        """Assignments of one transaction; metadata versions are read once per model."""
        yield AssignmentBatch(session, self._sealer, self._metadata, self._topics, now)


class AssignmentBatch:
    """The assignments of one transaction."""

    def __init__(
        self, session: Session, sealer: Sealer, metadata: MetadataVersions, topics: Topics, now: datetime
    ) -> None:
        self._session = session
        self._sealer = sealer
        self._metadata = metadata
        self._topics = topics
        self._now = now
        self._meta_min: dict[str, dict[str, int]] = {}

    def give(self, device_id: str, draft: AssignmentDraft) -> int:
        """Make `draft` what the device shall run of its model, and queue it; gives its `seq`, above all the device accepted."""
        seq = self._next(device_id)
        slots = slots_of(self._session, device_id)
        slot = slots.setdefault(draft.model, DeviceSlot(device_id=device_id, model=draft.model))
        slot.seq, slot.rollout_id, slot.wave = seq, draft.rollout, draft.wave
        version = draft.version or self._version(draft.model, slot.version)
        if version is None:
            slot.entry, slot.assigned_version, slot.removed = None, 0, True
        else:
            slot.entry, slot.assigned_version, slot.removed = (
                _encoded(_entry(version, seq, draft)),
                version.number,
                False,
            )
        self._session.add(slot)
        assignment = Assignment(
            device=device_id,
            seq=seq,
            issued=self._now,
            expires=self._now + _TTL,
            rollout=draft.rollout,
            wave=draft.wave,
            reason=draft.reason,
            attempt=draft.attempt,
            probation=draft.probation,
        )
        return self._send(
            self._whole(assignment, slots), f"{draft.rollout or 'direct'}:{device_id}:{seq}:{draft.attempt}"
        )

    def remove(self, device_id: str, model: str, *, reason: str) -> int:
        """Have a model taken away from a device; gives the `seq`."""
        seq = self._next(device_id)
        slots = slots_of(self._session, device_id)
        slot = slots[model]
        slot.seq, slot.rollout_id, slot.wave = seq, None, None
        slot.entry, slot.assigned_version, slot.removed = None, 0, True
        self._session.add(slot)
        assignment = Assignment(device=device_id, seq=seq, issued=self._now, expires=self._now + _TTL, reason=reason)
        return self._send(self._whole(assignment, slots), f"remove:{device_id}:{seq}")

    def measure(self, device_id: str, entry: SlotAssignment, *, reason: str, meta_min: dict[str, int]) -> int:
        """Have a candidate measured; gives its `seq`. What the device shall run stays in the books as it was."""
        seq = self._next(device_id)
        assignment = Assignment(
            device=device_id, seq=seq, issued=self._now, expires=self._now + _TTL, reason=reason, meta_min=meta_min
        )
        whole = self._whole(assignment, slots_of(self._session, device_id))
        others = {label: other for label, other in whole.slots.items() if other.model != entry.model}
        label = self._label(device_id, entry.model, others)
        removed = {model: removal for model, removal in whole.removed.items() if model != entry.model}
        slots = {**others, label: msgspec.structs.replace(entry, seq=seq)}
        return self._send(msgspec.structs.replace(whole, slots=slots, removed=removed), f"bench:{device_id}:{seq}")

    def restore(self, device_id: str, model: str, *, reason: str) -> int:
        """After a measurement of `model`: give what the device shall run anew; nothing assigned: keep what is active."""
        seq = self._next(device_id)
        slots = slots_of(self._session, device_id)
        slot = slots.get(model)
        assignment = Assignment(device=device_id, seq=seq, issued=self._now, expires=self._now + _TTL, reason=reason)
        if slot is not None and slot.entry is not None:
            entry = msgspec.structs.replace(_decoded(slot.entry), seq=seq)
            slot.entry, slot.seq = _encoded(entry), seq
            self._session.add(slot)
            assignment = msgspec.structs.replace(
                assignment, rollout=entry.rollout, wave=slot.wave, probation=entry.probation or assignment.probation
            )
        return self._send(self._whole(assignment, slots), f"bench:{device_id}:{seq}")

    def _next(self, device_id: str) -> int:
        row = self._session.get(DeviceAssignment, device_id)
        device = self._session.get(Device, device_id)
        return max(row.seq if row else 0, device.assignment_seq if device else 0) + 1

    def _whole(self, assignment: Assignment, slots: Mapping[str, DeviceSlot]) -> Assignment:
        """The assignment with an entry or a removal for every model of the device.

        A model that the device runs and nobody assigned (a database older than the device) is kept as it is.
        """
        entries: dict[str, SlotAssignment] = {}
        removed: dict[str, Removal] = {}
        for model, slot in sorted(slots.items()):
            if slot.removed:
                removed[model] = Removal(seq=slot.seq, rollout=slot.rollout_id)
                continue
            if slot.entry is None:
                running = self._version(model, slot.version)
                if running is None:
                    continue
                slot.entry = _encoded(_entry(running, assignment.seq, None))
                slot.seq, slot.assigned_version = assignment.seq, running.number
                self._session.add(slot)
            entries[self._label(assignment.device, model, entries)] = _decoded(slot.entry)
        return msgspec.structs.replace(
            assignment,
            slots=entries,
            removed=removed,
            meta_min=self._newest(assignment.meta_min, (*(entry.model for entry in entries.values()), *removed)),
        )

    def _label(self, device_id: str, model: str, taken: Collection[str]) -> str:
        """The key of a model's entry: its name, or what an agent of release 0.1 calls its only slot."""
        device = self._session.get(Device, device_id)
        label = device.slot_label if device is not None else ""
        return label if label and label not in taken else model

    def _send(self, assignment: Assignment, dedup: str) -> int:
        """Store the message in the place of the one before and queue it."""
        envelope = self._sealer.seal(assignment)
        row = self._session.get(DeviceAssignment, assignment.device)
        row = row or DeviceAssignment(device_id=assignment.device, seq=assignment.seq, envelope=envelope)
        row.seq, row.envelope, row.acknowledged = assignment.seq, envelope, False
        row.issued_at, row.expires_at = assignment.issued, assignment.expires
        self._session.add(row)
        self._queue(row, dedup)
        return assignment.seq

    def _version(self, model: str, number: int) -> Version | None:
        if not number:
            return None
        return self._session.exec(select(Version).where(Version.model == model, Version.number == number)).first()

    def _newest(self, meta_min: dict[str, int], models: Iterable[str]) -> dict[str, int]:
        """For each role the highest version that any of the models asks for."""
        newest = dict(meta_min)
        for model in models:
            if model not in self._meta_min:
                self._meta_min[model] = self._metadata.meta_min(model)
            for role, version in self._meta_min[model].items():
                newest[role] = max(version, newest.get(role, 0))
        return newest

    def renew(self, limit: int = 500) -> int:
        """Sign assignments that come near their expiry anew (same `seq`: for the device a repeat); how many."""
        query = select(DeviceAssignment).where(col(DeviceAssignment.expires_at) < self._now + _RENEW_BELOW).limit(limit)
        rows = self._session.exec(query).all()
        for row in rows:
            before = _payload(row.envelope)
            models = [*(entry.model for entry in before.slots.values()), *before.removed]
            renewed = msgspec.structs.replace(
                before, issued=self._now, expires=self._now + _TTL, meta_min=self._newest(before.meta_min, models)
            )
            row.envelope = self._sealer.seal(renewed)
            row.issued_at, row.expires_at = renewed.issued, renewed.expires
            self._session.add(row)
        return len(rows)

    def resend(self, every: timedelta, limit: int = 500) -> int:
        """Queue again what online devices have not acknowledged; at most once per device in `every`."""
        query = (
            select(DeviceAssignment)
            .join(Device, col(Device.id) == DeviceAssignment.device_id)
            .where(
                col(DeviceAssignment.acknowledged).is_(False),
                col(DeviceAssignment.issued_at) < self._now - every,
                col(Device.last_seen) > self._now - _ONLINE,
                Device.state == "active",
            )
            .limit(limit)
        )
        turn = int(self._now.timestamp() / every.total_seconds())
        rows = self._session.exec(query).all()
        return sum(self._queue(row, f"again:{row.device_id}:{row.seq}:{turn}") for row in rows)

    def _queue(self, row: DeviceAssignment, dedup: str) -> bool:
        return enqueue(self._session, self._topics, row, dedup, self._now)


def enqueue(session: Session, topics: Topics, row: DeviceAssignment, dedup: str, now: datetime) -> bool:
    """Put a stored assignment into the outbox unless `dedup` was there already; whether it was put."""
    if session.exec(select(Outbox.id).where(Outbox.dedup == dedup)).first() is not None:
        return False
    payload = encode(Assign(envelope=msgspec.Raw(row.envelope)))
    session.add(Outbox(dedup=dedup, topic=topics.cmd(row.device_id), payload=payload, created_at=now))
    return True


class _Envelope(msgspec.Struct):
    payload: str


def _payload(envelope: bytes) -> Assignment:
    """The document inside an envelope of our own database; its signature is about to be replaced."""
    inner = msgspec.json.decode(envelope, type=_Envelope)
    return msgspec.json.decode(base64.b64decode(inner.payload), type=Assignment)


def _entry(version: Version, seq: int, draft: AssignmentDraft | None) -> SlotAssignment:
    return SlotAssignment(
        model=version.model,
        target=target_path(version.model, version.number),
        length=len(version.manifest),
        sha256=version.manifest_sha256,
        release_seq=version.number,
        allow_older=draft.allow_older if draft is not None else True,
        seq=seq,
        rollout=draft.rollout if draft is not None else None,
        probation=draft.probation if draft is not None else None,
    )


def _encoded(entry: SlotAssignment) -> bytes:
    return msgspec.json.encode(entry)


def _decoded(entry: bytes) -> SlotAssignment:
    return msgspec.json.decode(entry, type=SlotAssignment)
