"""Signed assignments, one per device, kept as the device's desired state and queued in the outbox.

Whatever a device is told, it is told by an assignment with a `seq` above every earlier one; the newest is stored, answers every
hello, is sent again until it is acknowledged, and is signed anew before it expires. It names the version of every model of the
device: one `DeviceSlot` row a model says which, and a change of one model leaves the entries of the others as they are. All of it
happens in the caller's transaction. Not here: who gets which version (`core/rollout/step`), sending (`engine`).

Source: docs/adr/0002-two-repositories.md (director), docs/adr/0010-rules-for-every-broker.md (no retained messages).
"""

import base64
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.tables import Device, DeviceAssignment, Version
from wavegate_server.adapters.store.assignment_books import Books, DeviceBook, Sealed, SlotBook, queue
from wavegate_shared.assignment import Assignment, Probation, Removal, SlotAssignment
from wavegate_shared.manifest import target_path
from wavegate_shared.topics import Topics

__all__ = ["AssignmentBatch", "AssignmentDraft", "AssignmentWriter", "MetadataVersions", "Sealer"]

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
        """Assignments of one transaction, written at its end; versions and metadata are read once per model."""
        batch = AssignmentBatch(session, self._sealer, self._metadata, self._topics, now)
        yield batch
        batch.write()


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
        self._books = Books(session)
        self._versions: dict[tuple[str, int], Version | None] = {}
        self._meta_min: dict[str, dict[str, int]] = {}

    def load(self, devices: Iterable[str]) -> None:
        """Read these devices at once, before they are given something."""
        self._books.load(devices)

    def slot(self, device_id: str, model: str) -> SlotBook | None:
        """What the books say about one model of a device; None: nothing."""
        return self._books.of(device_id).slots.get(model)

    def write(self) -> None:
        """Store and queue what was given."""
        self._books.write(self._topics, self._now)

    def give(self, device_id: str, draft: AssignmentDraft) -> int:
        """Make `draft` what the device shall run of its model, and queue it; gives its `seq`, above all the device accepted."""
        book, assignment = self._begin(device_id, draft.reason)
        slot = book.slots.setdefault(draft.model, SlotBook())
        version = draft.version or self._version(draft.model, slot.version)
        _enter(slot, assignment.seq, draft, version)
        whole = msgspec.structs.replace(
            assignment, rollout=draft.rollout, wave=draft.wave, attempt=draft.attempt, probation=draft.probation
        )
        dedup = f"{draft.rollout or 'direct'}:{device_id}:{assignment.seq}:{draft.attempt}"
        return self._send(self._whole(whole, book), dedup)

    def remove(self, device_id: str, model: str, *, reason: str) -> int:
        """Have a model taken away from a device; gives the `seq`."""
        book, assignment = self._begin(device_id, reason)
        _enter(book.slots[model], assignment.seq, None, None)
        return self._send(self._whole(assignment, book), f"remove:{device_id}:{assignment.seq}")

    def measure(self, device_id: str, entry: SlotAssignment, *, reason: str, meta_min: dict[str, int]) -> int:
        """Have a candidate measured; gives its `seq`. What the device shall run stays in the books as it was."""
        book, assignment = self._begin(device_id, reason)
        whole = self._whole(msgspec.structs.replace(assignment, meta_min=meta_min), book)
        others = {label: other for label, other in whole.slots.items() if other.model != entry.model}
        label = _label(book, entry.model, others)
        removed = {model: removal for model, removal in whole.removed.items() if model != entry.model}
        slots = {**others, label: msgspec.structs.replace(entry, seq=assignment.seq)}
        return self._send(
            msgspec.structs.replace(whole, slots=slots, removed=removed), f"bench:{device_id}:{assignment.seq}"
        )

    def restore(self, device_id: str, model: str, *, reason: str) -> int:
        """After a measurement of `model`: give what the device shall run anew; nothing assigned: keep what is active."""
        book, assignment = self._begin(device_id, reason)
        slot = book.slots.get(model)
        if slot is not None and slot.entry is not None:
            entry = msgspec.structs.replace(_decoded(slot.entry), seq=assignment.seq)
            slot.entry, slot.seq, slot.changed = _encoded(entry), assignment.seq, True
            assignment = msgspec.structs.replace(
                assignment, rollout=entry.rollout, wave=slot.wave, probation=entry.probation or assignment.probation
            )
        return self._send(self._whole(assignment, book), f"bench:{device_id}:{assignment.seq}")

    def _begin(self, device_id: str, reason: str) -> tuple[DeviceBook, Assignment]:
        """The device's book, and an assignment with the next number that names no model yet."""
        book = self._books.of(device_id)
        book.seq += 1
        return book, Assignment(
            device=device_id, seq=book.seq, issued=self._now, expires=self._now + _TTL, reason=reason
        )

    def _whole(self, assignment: Assignment, book: DeviceBook) -> Assignment:
        """The assignment with an entry or a removal for every model of the device.

        A model that the device runs and nobody assigned (a database older than the device) is kept as it is.
        """
        entries: dict[str, SlotAssignment] = {}
        removed: dict[str, Removal] = {}
        for model, slot in sorted(book.slots.items()):
            if slot.removed:
                removed[model] = Removal(seq=slot.seq, rollout=slot.rollout_id)
                continue
            if slot.entry is None:
                running = self._version(model, slot.version)
                if running is None:
                    continue
                slot.entry = _encoded(_entry(running, assignment.seq, None))
                slot.seq, slot.assigned_version, slot.changed = assignment.seq, running.number, True
            entries[_label(book, model, entries)] = _decoded(slot.entry)
        return msgspec.structs.replace(
            assignment,
            slots=entries,
            removed=removed,
            meta_min=self._newest(assignment.meta_min, (*(entry.model for entry in entries.values()), *removed)),
        )

    def _send(self, assignment: Assignment, dedup: str) -> int:
        """Sign it; stored in the place of the one before, and queued, when the batch is written."""
        envelope = self._sealer.seal(assignment)
        self._books.put(
            Sealed(assignment.device, assignment.seq, envelope, assignment.issued, assignment.expires, dedup)
        )
        return assignment.seq

    def _version(self, model: str, number: int) -> Version | None:
        if not number:
            return None
        if (model, number) not in self._versions:
            query = select(Version).where(Version.model == model, Version.number == number)
            self._versions[(model, number)] = self._session.exec(query).first()
        return self._versions[(model, number)]

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

    def resend(self, every: timedelta, *, after: str = "", limit: int = 500) -> tuple[int, str]:
        """Queue again what online devices have not acknowledged; at most once per device in `every`.

        Args:
            every: least time between two.
            after: only devices behind this one, in order of their names.
            limit: of devices looked at.

        Returns:
            how many were queued, and the last device that was looked at; empty when there are no more.
        """
        query = (
            select(DeviceAssignment.device_id, DeviceAssignment.seq, DeviceAssignment.envelope)
            .join(Device, col(Device.id) == DeviceAssignment.device_id)
            .where(
                col(DeviceAssignment.acknowledged).is_(False),
                col(DeviceAssignment.issued_at) < self._now - every,
                col(DeviceAssignment.device_id) > after,
                col(Device.last_seen) > self._now - _ONLINE,
                Device.state == "active",
            )
            .order_by(col(DeviceAssignment.device_id))
            .limit(limit)
        )
        turn = int(self._now.timestamp() / every.total_seconds())
        rows = list(self._session.exec(query))
        again = [(device, envelope, f"again:{device}:{seq}:{turn}") for device, seq, envelope in rows]
        return queue(self._session, self._topics, again, self._now), rows[-1][0] if len(rows) == limit else ""


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


def _enter(slot: SlotBook, seq: int, draft: AssignmentDraft | None, version: Version | None) -> None:
    """Write into a slot what its model is assigned; no version: to be taken away."""
    slot.seq, slot.changed, slot.removed = seq, True, version is None
    slot.rollout_id, slot.wave = (draft.rollout, draft.wave) if draft is not None else (None, None)
    slot.entry = None if version is None else _encoded(_entry(version, seq, draft))
    slot.assigned_version = 0 if version is None else version.number


def _label(book: DeviceBook, model: str, taken: Collection[str]) -> str:
    """The key of a model's entry: its name, or what an agent of release 0.1 calls its only slot."""
    return book.label if book.label and book.label not in taken else model


def _encoded(entry: SlotAssignment) -> bytes:
    return msgspec.json.encode(entry)


def _decoded(entry: bytes) -> SlotAssignment:
    return msgspec.json.decode(entry, type=SlotAssignment)
