"""Ingest: from the broker into the database, in batches, acknowledged only after the commit.

    network thread -> bounded inbox -> writer thread -> one transaction -> ack -> "stored up to (boot, seq)"

One transaction holds up to 1000 messages or 20 ms: raw windows and their roll-ups, states, reports and hellos through
`UpHandlers`, and the watermarks. So a message counts exactly once, whatever dies when: before the commit nothing was
acknowledged and the broker or the device's outbox sends it again; after it the watermark drops the repetition. A message
that cannot be stored is counted and named in the log, never a reason to lose its neighbours. Requests (`rq`) ask for bytes
and write nothing: they go to a small thread pool, past the database.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from wavegate_server.adapters import clock
from wavegate_server.adapters.broker.clients import Ack, MqttAccess, Uplink
from wavegate_server.adapters.store.device_cache import MAX_AGE_S, DeviceCache
from wavegate_server.adapters.store.telemetry import prune
from wavegate_server.config import Settings
from wavegate_server.core.ingest import Mark
from wavegate_server.services.ingest.batch import BatchWriter, UpHandlers, Written
from wavegate_server.services.ingest.inbox import Inbox, Message
from wavegate_shared.errors import TrustError, WavegateError
from wavegate_shared.wire import (
    MAX_MESSAGE_BYTES,
    ChunkRequest,
    DocumentRequest,
    RenewRequest,
    Stored,
    TimeRequest,
    decode_up,
    encode,
)

__all__ = ["Counters", "Ingest", "Requests", "StoredAnswers"]

INBOX_MESSAGES = 4000
INBOX_BYTES = 16 * 1024 * 1024
REQUEST_THREADS = 4
TOPICS_CACHED = 65_536
REQUESTS_WAITING = 512
ANSWER_EVERY_S = 1.0
COMPLAINT_EVERY_S = 60.0
PRUNE_EVERY_S = 600.0
RETRY_MIN_S = 0.2
RETRY_MAX_S = 5.0
MAX_COMPLAINTS = 10_000

_LOG = logging.getLogger(__name__)


class Requests(Protocol):
    """Answers requests for chunks, documents and time; any thread."""

    def handle(self, device_id: str, message: ChunkRequest | DocumentRequest | TimeRequest | RenewRequest) -> None:
        """Send the answer to the device."""


class StoredAnswers(Protocol):
    """Sends a message whose loss costs nothing (`adapters.mqtt.Downlink`)."""

    def offer(self, topic: str, payload: bytes, qos: int) -> bool:
        """Send without waiting, or not at all."""


@dataclass(slots=True)
class Counters:
    """What happened since the start, for /metrics.

    Attributes:
        received: messages from the broker.
        stored: new messages that are durable.
        duplicates: at or below a watermark.
        malformed: messages refused (size, schema, values, signature, or a handler's refusal).
        unknown_device: from a device that is not enrolled or revoked.
        requests: handed to the request pool; `requests_dropped`: not, because too many waited.
        batches, retries: transactions committed, and begun again after a database error.
        waiting: messages in the inbox now.
    """

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    malformed: int = 0
    unknown_device: int = 0
    requests: int = 0
    requests_dropped: int = 0
    batches: int = 0
    retries: int = 0
    waiting: int = 0


class Ingest:
    """The ingest of one shard set, under the identity of its uplink.

    Args:
        engine: the database; this is its only writer of telemetry.
        settings: topic prefix and retention.
        answers: where `Stored` goes.
        handlers: states, reports, hellos.
        requests: the `rq` channel.
        on_revoked: told all revoked devices (id -> certificate serial) whenever that set changes, and once at the start.
        now: the clock.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        answers: StoredAnswers,
        handlers: UpHandlers,
        requests: Requests,
        *,
        on_revoked: Callable[[Mapping[str, str]], None] = lambda _revoked: None,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._topics = settings.topics
        self._answers = answers
        self._requests = requests
        self._on_revoked = on_revoked
        self._now = now
        self._inbox = Inbox(INBOX_MESSAGES, INBOX_BYTES)
        self._devices = DeviceCache(engine, self._tell_revoked)
        self._batches = BatchWriter(engine, self._devices, handlers, now)
        self._pool = ThreadPoolExecutor(REQUEST_THREADS, thread_name_prefix="ingest-request")
        self._pool_room = threading.BoundedSemaphore(REQUESTS_WAITING)
        self._parse = lru_cache(maxsize=TOPICS_CACHED)(self._topics.parse_up)
        self._received = 0
        self._counters = Counters()
        self._count_lock = threading.Lock()
        self._complaints: dict[str, float] = {}
        self._owed: dict[str, Mark] = {}
        self._answered_at = 0.0
        self._stopping = threading.Event()
        self._writer = threading.Thread(target=self._write_loop, name="ingest-writer", daemon=True)
        self._pruner = threading.Thread(target=self._prune_loop, name="ingest-prune", daemon=True)
        self._uplink: Uplink | None = None

    def start(self, access: MqttAccess | None = None, *, persistent: bool = False) -> None:
        """Start the threads, and the connection when `access` is given (`ingest-<n>`)."""
        gc.collect()
        gc.freeze()  # what is loaded by now stays; walking it again and again cost a tenth of the throughput
        self._writer.start()
        self._pruner.start()
        if access is not None:
            self._uplink = Uplink(
                access, filters=[self._topics.up_filter()], handler=self.receive, persistent=persistent
            )
            self._uplink.start()

    def close(self) -> None:
        """Finish the batch in hand; what waits is not acknowledged and comes again. Idempotent."""
        self._stopping.set()
        self._inbox.close()
        if self._writer.is_alive():
            self._writer.join()
        if self._pruner.is_alive():
            self._pruner.join()
        if self._uplink is not None:
            self._uplink.close()
            self._uplink = None
        self._pool.shutdown(wait=True, cancel_futures=True)

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the broker confirmed the subscription."""
        return self._uplink is not None and self._uplink.wait_subscribed(timeout_s)

    def counters(self) -> Counters:
        """A copy of the counters."""
        with self._count_lock:
            present = self._counters
            copy = Counters(**{name: getattr(present, name) for name in Counters.__slots__})
        copy.received = self._received
        copy.waiting = len(self._inbox)
        return copy

    def receive(self, topic: str, payload: bytes, ack: Ack) -> None:
        """Take one message from the network thread; waits while the inbox is full."""
        self._received += 1  # the network thread's alone
        up = self._parse(topic)
        if up is None or len(payload) > MAX_MESSAGE_BYTES:
            self._refuse("?" if up is None else up.device, "message_malformed", "wrong topic, or too large")
            ack()
        elif up.channel == "rq":
            ack()  # nothing to make durable: a lost request is asked again
            self._take_request(up.device, payload)
        else:
            self._inbox.put(Message(up.device, payload, ack))

    # --- requests -----------------------------------------------------------------------------------------------------

    def _take_request(self, device: str, payload: bytes) -> None:
        if not self._pool_room.acquire(blocking=False):
            self._count("requests_dropped")
            return
        try:
            self._pool.submit(self._answer_request, device, payload)
        except RuntimeError:  # shut down
            self._pool_room.release()

    def _answer_request(self, device: str, payload: bytes) -> None:
        try:
            if self._devices.active(device) is None:
                self._unknown(device)
                return
            message = decode_up(payload)
            if not isinstance(message, ChunkRequest | DocumentRequest | TimeRequest | RenewRequest):
                raise TrustError("message_malformed", "not a request")
            self._count("requests")
            self._requests.handle(device, message)
        except WavegateError as error:
            self._refuse(device, error.code, error.detail)
        except (SQLAlchemyError, OSError) as error:
            _LOG.warning("request_failed device=%s error=%r", device, error)
        finally:
            self._pool_room.release()

    # --- the writer ---------------------------------------------------------------------------------------------------

    def _write_loop(self) -> None:
        while not self._stopping.is_set():
            batch = self._inbox.take(ANSWER_EVERY_S if self._owed else MAX_AGE_S)
            if batch:
                self._store(batch)
            else:
                self._idle()
            self._answer_devices()
        self._answer_devices(force=True)

    def _idle(self) -> None:
        try:
            self._devices.refresh()
        except SQLAlchemyError as error:
            _LOG.warning("registry_unreadable error=%r", error)

    def _store(self, batch: Sequence[Message]) -> None:
        """Store a batch, for as long as it takes; split it when something in it cannot be stored."""
        pause_s = RETRY_MIN_S
        while True:
            try:
                written = self._batches.write(batch)
                break
            except OperationalError as error:  # locked, full, away: the batch is sound, the database is not
                self._count("retries")
                _LOG.warning("ingest_retry messages=%d pause_s=%.1f error=%r", len(batch), pause_s, error.orig)
                if self._stopping.wait(pause_s):
                    return
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            except Exception:  # the tick boundary of the ingest: one bad message must not end the writer
                self._isolate(batch)
                return
        for message in batch:
            message.ack()
        self._settle(written)

    def _isolate(self, batch: Sequence[Message]) -> None:
        """Find the message that cannot be stored, by halves, and pass over it."""
        if len(batch) > 1:
            self._store(batch[: len(batch) // 2])
            self._store(batch[len(batch) // 2 :])
            return
        message = batch[0]
        _LOG.exception("message_unstorable device=%s", message.device)
        self._refuse(message.device, "message_malformed", "cannot be stored")
        try:
            self._batches.skip(message)
        except SQLAlchemyError as error:
            _LOG.warning("message_not_skipped device=%s error=%r", message.device, error)
        message.ack()

    def _settle(self, written: Written) -> None:
        with self._count_lock:
            self._counters.stored += written.stored
            self._counters.duplicates += written.duplicates
            self._counters.batches += 1
        for device, code, detail in written.refused:
            self._refuse(device, code, detail)
        for device in written.unknown:
            self._unknown(device)
        self._owed.update(written.answers)

    def _answer_devices(self, *, force: bool = False) -> None:
        """Tell devices what is durable, once a second: one answer covers all before it."""
        instant = time.monotonic()
        if not self._owed or (not force and instant - self._answered_at < ANSWER_EVERY_S):
            return
        self._answered_at = instant
        for device, (boot, seq) in self._owed.items():
            self._answers.offer(self._topics.cmd(device), encode(Stored(boot=boot, seq=seq)), 1)
        self._owed.clear()

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def _prune_loop(self) -> None:
        while not self._stopping.wait(PRUNE_EVERY_S):
            try:
                deleted = prune(self._engine, self._now(), raw_retention_h=self._settings.raw_retention_h)
                _LOG.debug("telemetry_pruned rows=%d", deleted)
            except SQLAlchemyError as error:
                _LOG.warning("telemetry_prune_failed error=%r", error)

    def _tell_revoked(self, revoked: Mapping[str, str]) -> None:
        try:
            self._pool.submit(self._revoke, revoked)
        except RuntimeError:  # shut down
            _LOG.debug("revocations_not_told")

    def _revoke(self, revoked: Mapping[str, str]) -> None:
        try:
            self._on_revoked(revoked)
        except (OSError, WavegateError) as error:
            _LOG.warning("revocations_not_told devices=%d error=%r", len(revoked), error)
            self._devices.repeat_revoked()

    def _count(self, name: str) -> None:
        with self._count_lock:
            setattr(self._counters, name, getattr(self._counters, name) + 1)

    def _refuse(self, device: str, code: str, detail: str) -> None:
        self._count("malformed")
        if self._may_complain(f"{device} {code}"):
            _LOG.warning("message_refused device=%s code=%s detail=%.200s", device, code, detail)

    def _unknown(self, device: str) -> None:
        self._count("unknown_device")
        if self._may_complain(f"{device} unknown"):
            _LOG.warning("message_refused device=%s code=unknown_device", device)

    def _may_complain(self, subject: str) -> bool:
        """Once a minute for each device and code."""
        instant = time.monotonic()
        with self._count_lock:
            if instant - self._complaints.get(subject, -COMPLAINT_EVERY_S) < COMPLAINT_EVERY_S:
                return False
            if len(self._complaints) >= MAX_COMPLAINTS:
                self._complaints.clear()
            self._complaints[subject] = instant
            return True
