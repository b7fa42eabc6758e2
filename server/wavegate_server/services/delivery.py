"""Delivery: answers what a device asks for, with frames on its own topic.

Chunks of published artifacts, metadata documents, the time. Answers are QoS 0: a lost frame is asked for again, and the device
checks every byte, so this needs no trust and no state. Work is bounded per device (a token bucket of bytes), so that one device
gone wild costs the others nothing. Broadcast to a wave and the HTTP way will be further ways to the same chunks.

Source: docs/adr/0011-a-chunk-is-verified-however-it-came.md.
"""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from threading import Lock
from typing import Protocol

import msgspec

from wavegate_server.adapters import clock
from wavegate_server.adapters.store.artifacts import ChunkTable
from wavegate_shared.chunks import CHUNK_BYTES, Form, Frame
from wavegate_shared.errors import TransferError, UsageError
from wavegate_shared.topics import Topics
from wavegate_shared.wire import ChunkRequest, DocumentRequest, TimeAnswer, TimeRequest, encode

__all__ = ["Delivery", "Documents", "Lookup", "ObjectReader", "Send", "TimeSigner"]

_LOG = logging.getLogger(__name__)
_RATE_BYTES_S = 64 << 20
_BURST_BYTES = 32 << 20
_REQUEST_COST = 16 * 1024
"""What a request costs before its bytes (a look-up, a read, a signature), so that many tiny ones are bounded too."""
_DEVICES_KEPT = 4096

Send = Callable[[str, bytes, int], object]
"""(topic, payload, QoS): `Downlink.publish`."""


class ObjectReader(Protocol):
    """The artifact store: `adapters/files/objects.Objects`."""

    def open_range(self, sha256: str, start: int, length: int) -> bytes:
        """Bytes of one object. UsageError `not_found`."""


class Documents(Protocol):
    """The image repository: `adapters/trust/image_repository.ImageRepository`."""

    def read(self, name: str) -> bytes | None:
        """A document for devices, or None."""


class TimeSigner(Protocol):
    """Signs the time: `adapters/trust/director.Director`."""

    def answer_time(self, nonce: str, now: datetime) -> bytes:
        """The envelope answering a nonce."""


class Lookup(Protocol):
    """Knows published artifacts: `adapters/store/artifacts.ArtifactIndex`."""

    def find(self, sha256: str) -> ChunkTable | None:
        """Its chunks, or None."""


class Delivery:
    """Answers requests; safe between threads, keeps nothing but the budgets."""

    def __init__(
        self,
        objects: ObjectReader,
        tuf_repo: Documents,
        director: TimeSigner,
        send: Send,
        lookup: Lookup,
        topics: Topics,
        *,
        now: Callable[[], datetime] = clock.now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused = 0
        self._objects = objects
        self._documents = tuf_repo
        self._director = director
        self.send = send
        self._lookup = lookup
        self._topics = topics
        self._now = now
        self._budgets = _Budgets(monotonic)

    def handle(self, device_id: str, message: ChunkRequest | DocumentRequest | TimeRequest) -> None:
        """Answer one request of an active device; over its budget it is not answered, and asks again later."""
        if not self._spend(device_id, _REQUEST_COST):
            return
        try:
            if isinstance(message, TimeRequest):
                self._answer_time(device_id, message)
            else:
                frames = self._chunks(message) if isinstance(message, ChunkRequest) else self._document(message)
                self._send_frames(device_id, frames)
        except TransferError as error:
            _LOG.debug("delivery.not_sent device=%s error=%s", device_id, error)

    def _answer_time(self, device_id: str, message: TimeRequest) -> None:
        envelope = self._director.answer_time(message.nonce, self._now())
        self.send(self._topics.cmd(device_id), encode(TimeAnswer(envelope=msgspec.Raw(envelope))), 1)

    def _send_frames(self, device_id: str, frames: Iterator[Frame]) -> None:
        topic = self._topics.chunks(device_id)
        for frame in frames:
            if not self._spend(device_id, len(frame.payload)):
                return
            self.send(topic, frame.encode(), 0)

    def _chunks(self, message: ChunkRequest) -> Iterator[Frame]:
        table = self._lookup.find(message.sha256)
        if table is None:
            yield Frame(Form.MISSING, message.xfer, message.indexes[0], 0, 0, b"")
            return
        total = len(table.chunks)
        for index in dict.fromkeys(message.indexes):
            if index >= total:
                self.refused += 1
                continue
            start, length = table.starts[index], table.chunks[index].size_bytes
            try:
                data = self._objects.open_range(message.sha256, start, length)
            except UsageError:
                _LOG.warning("delivery.object_missing sha256=%s", message.sha256[:16])
                yield Frame(Form.MISSING, message.xfer, index, total, 0, b"")
                return
            yield Frame(Form.RAW, message.xfer, index, total, start & 0xFFFFFFFF, data)

    def _document(self, message: DocumentRequest) -> Iterator[Frame]:
        data = self._documents.read(message.name)
        if data is None:
            yield Frame(Form.MISSING, message.xfer, 0, 0, 0, b"")
            return
        end = min(len(data), message.offset + message.max_bytes)
        at = min(message.offset, len(data))
        for index, start in enumerate(range(at, max(end, at + 1), CHUNK_BYTES)):
            yield Frame(
                Form.DOCUMENT, message.xfer, index, len(data), start, data[start : min(start + CHUNK_BYTES, end)]
            )

    def _spend(self, device_id: str, cost: int) -> bool:
        allowed = self._budgets.spend(device_id, cost)
        if not allowed:
            self.refused += 1
            _LOG.debug("delivery.over_budget device=%s", device_id)
        return allowed


class _Budgets:
    """A token bucket of bytes per device; the oldest is dropped when there are too many."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def spend(self, device_id: str, cost: int) -> bool:
        with self._lock:
            now = self._monotonic()
            left, at = self._left.pop(device_id, (float(_BURST_BYTES), now))
            left = min(float(_BURST_BYTES), left + (now - at) * _RATE_BYTES_S)
            allowed = left >= cost
            self._left[device_id] = (left - cost if allowed else left, now)
            while len(self._left) > _DEVICES_KEPT:
                del self._left[next(iter(self._left))]
            return allowed
