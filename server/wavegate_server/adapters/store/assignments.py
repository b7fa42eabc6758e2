"""Signed assignments, one per device, kept as the device's desired state and queued in the outbox.

Whatever a device is told, it is told by an assignment with a `seq` above every earlier one; the newest is stored, answers every
hello, is sent again until it is acknowledged, and is signed anew before it expires. All of it happens in the caller's
transaction. Not here: who gets which order (`core/rollout/step`), sending (`engine`).

Source: docs/adr/0002-two-repositories.md (director), docs/adr/0010-rules-for-every-broker.md (no retained messages).
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.tables import Device, DeviceAssignment, Outbox, Version
from wavegate_shared.assignment import DEFAULT_SLOT, Assignment, Probation, SlotAssignment
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
    """What one device shall run. `version` None: keep what is active. `allow_older` makes it a rollback."""

    version: Version | None
    model: str
    rollout: str | None
    wave: int | None
    reason: str
    attempt: int = 1
    allow_older: bool = False
    probation: Probation = field(default_factory=Probation)


class AssignmentWriter:
    """Gives orders; opened per transaction with `batch`."""

    def __init__(self, sealer: Sealer, metadata: MetadataVersions, topics: Topics) -> None:
        self._sealer = sealer
        self._metadata = metadata
        self._topics = topics

    @contextmanager
    def batch(self, session: Session, now: datetime) -> Iterator["AssignmentBatch"]:
        """Assignments of one transaction; metadata versions are read once per model."""
        yield AssignmentBatch(session, self._sealer, self._metadata, self._topics, now)


class AssignmentBatch:
    """The orders of one transaction."""

    def __init__(
        self, session: Session, sealer: Sealer, metadata: MetadataVersions, topics: Topics, now: datetime
    ) -> None:
        self._session = session
        self._sealer = sealer
        self._metadata = metadata
        self._topics = topics
        self._now = now
        self._meta_min: dict[str, dict[str, int]] = {}

    def give(self, device_id: str, order: AssignmentDraft) -> int:
        """Make `order` the device's desired state and queue it; gives its `seq`, above all this device ever accepted."""
        row = self._session.get(DeviceAssignment, device_id)
        seq = self._next(device_id, row)
        assignment = self._assignment(device_id, seq, order)
        envelope = self._sealer.seal(assignment)
        row = row or DeviceAssignment(device_id=device_id, seq=seq, envelope=envelope)
        row.seq, row.envelope, row.acknowledged = seq, envelope, False
        row.rollout_id, row.wave, row.model = order.rollout, order.wave, order.model
        row.version = order.version.number if order.version else 0
        row.issued_at, row.expires_at = assignment.issued, assignment.expires
        self._session.add(row)
        self._queue(row, f"{order.rollout or 'direct'}:{device_id}:{seq}:{order.attempt}")
        return seq

    def measure(self, device_id: str, slot: SlotAssignment, *, reason: str, meta_min: dict[str, int]) -> int:
        """Order a candidate to be measured; gives its `seq`. What the device shall run stays in the books as it was."""
        row = self._session.get(DeviceAssignment, device_id)
        order = Assignment(
            device=device_id,
            seq=self._next(device_id, row),
            issued=self._now,
            expires=self._now + _TTL,
            reason=reason,
            slots={DEFAULT_SLOT: slot},
            meta_min=meta_min,
        )
        return self._replace(row, order)

    def restore(self, device_id: str, envelope: bytes | None, *, reason: str) -> int:
        """Give the order in `envelope` anew after a measurement; None: nothing was ordered, keep what is active."""
        row = self._session.get(DeviceAssignment, device_id)
        before = _payload(envelope) if envelope is not None else None
        empty = Assignment(device=device_id, seq=1, issued=self._now, expires=self._now, reason=reason)
        order = msgspec.structs.replace(
            before or empty,
            seq=self._next(device_id, row),
            issued=self._now,
            expires=self._now + _TTL,
            meta_min=self._versions(row.model if row else ""),
        )
        return self._replace(row, order)

    def _next(self, device_id: str, row: DeviceAssignment | None) -> int:
        device = self._session.get(Device, device_id)
        return max(row.seq if row else 0, device.assignment_seq if device else 0) + 1

    def _replace(self, row: DeviceAssignment | None, order: Assignment) -> int:
        """Send another message in the place of the stored one, whose rollout and version stay as they are."""
        envelope = self._sealer.seal(order)
        row = row or DeviceAssignment(device_id=order.device, seq=order.seq, envelope=envelope)
        row.seq, row.envelope, row.acknowledged = order.seq, envelope, False
        row.issued_at, row.expires_at = order.issued, order.expires
        self._session.add(row)
        self._queue(row, f"bench:{order.device}:{order.seq}")
        return order.seq

    def renew(self, limit: int = 500) -> int:
        """Sign assignments that come near their expiry anew (same `seq`: for the device a repeat); how many."""
        query = select(DeviceAssignment).where(col(DeviceAssignment.expires_at) < self._now + _RENEW_BELOW).limit(limit)
        rows = self._session.exec(query).all()
        for row in rows:
            renewed = msgspec.structs.replace(
                _payload(row.envelope), issued=self._now, expires=self._now + _TTL, meta_min=self._versions(row.model)
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

    def _assignment(self, device_id: str, seq: int, order: AssignmentDraft) -> Assignment:
        slots = {}
        if order.version is not None:
            slots[DEFAULT_SLOT] = SlotAssignment(
                model=order.version.model,
                target=target_path(order.version.model, order.version.number),
                length=len(order.version.manifest),
                sha256=order.version.manifest_sha256,
                release_seq=order.version.number,
                allow_older=order.allow_older,
            )
        return Assignment(
            device=device_id,
            seq=seq,
            issued=self._now,
            expires=self._now + _TTL,
            rollout=order.rollout,
            wave=order.wave,
            reason=order.reason,
            attempt=order.attempt,
            slots=slots,
            probation=order.probation,
            meta_min=self._versions(order.model),
        )

    def _versions(self, model: str) -> dict[str, int]:
        if model not in self._meta_min:
            self._meta_min[model] = self._metadata.meta_min(model)
        return self._meta_min[model]

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
