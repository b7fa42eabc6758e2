"""One transaction of the ingest: a batch of messages, written so that each counts exactly once.

Raw windows, their roll-ups, what the handlers write for states, reports and hellos, and the watermarks stand or fall
together. A message that breaks a rule is refused by itself. Threads, acknowledgements and repetition: `ingest`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Engine
from sqlmodel import Session

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import DeviceEvent
from wavegate_server.adapters.store.audit import bump_revision
from wavegate_server.adapters.store.device_cache import DeviceCache
from wavegate_server.adapters.store.rollups import add_sums
from wavegate_server.adapters.store.telemetry import (
    KnownDevice,
    append_windows,
    last_seen,
    read_watermarks,
    save_watermarks,
    window_row,
)
from wavegate_server.core.ingest import Mark, Place, Rollups, check_mark, check_window, is_new
from wavegate_server.services.ingest.inbox import Message
from wavegate_shared.dsse import Key, open_signed
from wavegate_shared.errors import TrustError, WavegateError
from wavegate_shared.wire import (
    REPORT_TYPE,
    ChunkRequest,
    DocumentRequest,
    Hello,
    RenewRequest,
    Report,
    SignedReport,
    StateEvent,
    TimeRequest,
    Up,
    Window,
    decode_up,
)

__all__ = ["BatchWriter", "UpHandlers", "Written"]

LAST_SEEN_EVERY_S = 5.0
REVISION_EVERY_S = 1.0


class UpHandlers(Protocol):
    """What states, reports and hellos mean; called in the ingest's transaction, new messages only."""

    def apply(
        self, session: Session, device_id: str, message: Hello | StateEvent | SignedReport, now: datetime
    ) -> None:
        """Write what the message changes. Reports come with their signature verified."""


@dataclass(slots=True)
class Written:
    """What one transaction did.

    Attributes:
        answers: up to where each device touched is durable now.
        refused: (device, code, detail) of messages that broke a rule.
        unknown: devices that may not speak, one entry a message.
    """

    answers: dict[str, Mark] = field(default_factory=dict)
    stored: int = 0
    duplicates: int = 0
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


_FromDevice: TypeAlias = Hello | StateEvent | SignedReport | Window


@dataclass(slots=True)
class _State:
    """A batch while it is read."""

    now: datetime
    watermarks: dict[str, Mark]
    received_ms: int
    written: Written = field(default_factory=Written)
    raised: dict[str, Mark] = field(default_factory=dict)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    rollups: Rollups = field(default_factory=Rollups)


class BatchWriter:
    """Writes batches; one thread."""

    def __init__(self, engine: Engine, devices: DeviceCache, handlers: UpHandlers, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._devices = devices
        self._handlers = handlers
        self._now = now
        self._seen_at: dict[str, float] = {}
        self._revision_at = -REVISION_EVERY_S

    def write(self, batch: Sequence[Message]) -> Written:
        """Store a batch in one transaction; nothing of it is stored when this raises."""
        now = self._now()
        known = {device: self._devices.active(device) for device in {message.device for message in batch}}
        with write(self._engine) as session:
            connection = session.connection()
            watermarks = read_watermarks(connection, [device for device, each in known.items() if each])
            state = _State(now, watermarks, received_ms=int(now.timestamp() * 1000))
            for message in batch:
                device = known[message.device]
                if device is None:
                    state.written.unknown.append(message.device)
                    continue
                try:
                    self._take(session, state, device, _decode(message.payload))
                except WavegateError as error:
                    state.written.refused.append((device.id, error.code, error.detail))
            session.flush()
            append_windows(connection, state.rows)
            add_sums(connection, state.rollups.device_sums(), state.rollups.fleet_sums())
            save_watermarks(connection, state.raised)
            self._touch(session, state.written.answers, now)
        return state.written

    def skip(self, message: Message) -> None:
        """Pass over a message that cannot be stored, so that its device does not send it for ever."""
        try:
            up = _decode(message.payload)
        except WavegateError:
            return
        if isinstance(up, Hello):
            return
        with write(self._engine) as session:
            connection = session.connection()
            if is_new((up.boot, up.seq), read_watermarks(connection, [message.device]).get(message.device)):
                save_watermarks(connection, {message.device: (up.boot, up.seq)})

    def _take(self, session: Session, state: _State, device: KnownDevice, up: _FromDevice) -> None:
        watermark = state.watermarks.get(device.id)
        if isinstance(up, Hello):
            if watermark is not None:  # what it need not send again
                state.written.answers[device.id] = watermark
            self._handle(session, device, up, state.now)
            state.written.stored += 1
            return
        mark = (up.boot, up.seq)
        if watermark is not None and not is_new(mark, watermark):
            state.written.duplicates += 1
            state.written.answers[device.id] = watermark
            return
        state.watermarks[device.id] = state.raised[device.id] = state.written.answers[device.id] = mark
        if isinstance(up, Window):
            sound = check_window(up)
            state.rows.append(window_row(device.id, sound, state.received_ms))
            state.rollups.add(device.id, Place(device.hardware_class, device.site), sound)
        else:
            self._handle(session, device, up, state.now)
        state.written.stored += 1

    def _handle(
        self, session: Session, device: KnownDevice, message: Hello | StateEvent | SignedReport, now: datetime
    ) -> None:
        """Let the handlers write, or note why not; a refusal undoes what this one message wrote."""
        try:
            if isinstance(message, SignedReport):
                _verify(message, device.id, self._devices.keys(device))
            with session.begin_nested():
                self._handlers.apply(session, device.id, message, now)
        except TrustError as error:
            session.add(
                DeviceEvent(device_id=device.id, at=now, kind="server", code=error.code, detail=error.detail[:500])
            )
            raise

    def _touch(self, session: Session, answers: Mapping[str, Mark], now: datetime) -> None:
        """Last-seen times and the pages' tick, not more often than somebody can see."""
        instant = time.monotonic()
        due = [each for each in answers if instant - self._seen_at.get(each, -LAST_SEEN_EVERY_S) >= LAST_SEEN_EVERY_S]
        last_seen(session.connection(), dict.fromkeys(due, now))
        self._seen_at.update(dict.fromkeys(due, instant))
        if answers and instant - self._revision_at >= REVISION_EVERY_S:
            bump_revision(session)
            self._revision_at = instant


def _decode(payload: bytes) -> _FromDevice:
    message: Up = decode_up(payload)
    if isinstance(message, ChunkRequest | DocumentRequest | TimeRequest | RenewRequest):
        raise TrustError("message_malformed", "a request on the wrong channel")
    check_mark(message)
    return message


def _verify(message: SignedReport, device: str, keys: Sequence[Key]) -> None:
    """Whether the device itself signed this report, and for this place in its outbox."""
    report = open_signed(bytes(message.envelope), Report, REPORT_TYPE, keys)
    if report.device != device:
        raise TrustError("wrong_device", f"the report names {report.device}")
    if (report.boot, report.seq) != (message.boot, message.seq):
        raise TrustError("message_malformed", "the report's number is not the message's")
