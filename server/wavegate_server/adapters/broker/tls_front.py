"""The TLS gate in front of the embedded broker: nothing reaches the broker library before it was judged.

The library's own listener must not face a network: it never demands a client certificate, and it deletes and takes over
sessions before it authenticates, so that a stranger could silence a device for good. The gate is an asyncio TLS server that
demands a certificate of our authority, reads the CONNECT packet (bounded in size and time), judges it
(`core/mqtt_connect.py`) and only then hands bytes and stream to the broker as an `external` listener. It also does what
the library leaves out: one live connection per identity (a new one ends the old one first), keep-alive, a bound on packets,
slow readers, and the lists of revoked identities and certificates.
"""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter

from wavegate_server.adapters.broker.acl import identity_of_certificate
from wavegate_server.core.mqtt_connect import Identity, Refused, connack, judge_connect, judge_packet
from wavegate_shared.topics import Topics

__all__ = ["PacketReader", "PacketWriter", "TlsFront", "TlsFrontSettings", "tls_context"]

MAX_CONNECT_BYTES = 16 * 1024
CONNECT_TIMEOUT_S = 10.0
TAKE_OVER_TIMEOUT_S = 5.0
SLOW_READER_S = 30.0
"""A client that takes nothing for so long is dropped: what it missed is sent again when it asks."""
WRITE_HIGH_WATER = 8 * 1024 * 1024
BACKLOG = 1024
DENY_POLL_S = 0.5
BUSY_POLL_S = 0.005

_LOG = logging.getLogger(__name__)

Serve = Callable[[ReaderAdapter, WriterAdapter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TlsFrontSettings:
    """Where the gate listens and whom it trusts.

    Attributes:
        deny_list: JSON list of revoked identities; a missing file denies nobody.
        revoked_serials: JSON list of serial numbers of revoked certificates; a missing file revokes none.
    """

    host: str
    port: int
    ca: Path
    certificate: Path
    key: Path
    deny_list: Path
    revoked_serials: Path
    topics: Topics
    max_packet_bytes: int = 1 << 20


def tls_context(settings: TlsFrontSettings) -> ssl.SSLContext:
    """A server context that demands a certificate of our authority; TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=settings.ca)
    context.load_cert_chain(settings.certificate, settings.key)
    return context


class _Closed(Exception):
    """The connection is over: end of stream, a broken rule, or a time limit."""


async def _read_packet(stream: asyncio.StreamReader, limit: int) -> tuple[bytes, bytes]:
    """One whole packet as (fixed header, body). Raises _Closed at the end or above `limit` bytes."""
    try:
        head = await stream.readexactly(2)
        while head[-1] & 0x80:
            if len(head) == 5:
                raise _Closed("malformed length")
            head += await stream.readexactly(1)
        length = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(head[1:]))
        if length > limit:
            raise _Closed(f"packet of {length} bytes, at most {limit}")
        return head, await stream.readexactly(length)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise _Closed("connection closed") from error


class PacketReader(ReaderAdapter):
    """What the broker reads from: whole, judged packets; end of stream on any broken rule or silence."""

    def __init__(
        self, stream: asyncio.StreamReader, first: bytes, *, keepalive_s: int, limit: int, busy: Callable[[], bool]
    ) -> None:
        self._stream = stream
        self._packet = first
        self._at = 0
        self._silence_s = keepalive_s * 1.5 if keepalive_s else None
        self._limit = limit
        self._busy = busy
        self._over = False

    async def read(self, n: int = -1) -> bytes:
        """The next `n` bytes of the current packet; raises IncompleteReadError once the connection is over."""
        if n == 0:
            return b""
        if self._at == len(self._packet):
            await self._next()
        end = len(self._packet) if n < 0 else self._at + n
        piece = self._packet[self._at : end]
        self._at += len(piece)
        return piece

    def feed_eof(self) -> None:
        """End the stream after the current packet."""
        self._over = True

    async def _next(self) -> None:
        while self._busy():  # the back-pressure the library lacks: stop reading the socket
            await asyncio.sleep(BUSY_POLL_S)
        try:
            if self._over:
                raise _Closed("over")
            async with asyncio.timeout(self._silence_s):
                head, body = await _read_packet(self._stream, self._limit)
            judged = judge_packet(head, body)
            if judged is None:
                raise _Closed("broken rule")
        except (_Closed, TimeoutError) as error:
            self._over = True
            raise asyncio.IncompleteReadError(b"", 1) from error
        self._packet, self._at = judged, 0


class PacketWriter(WriterAdapter):
    """What the broker writes to: a stream that drops a client which takes nothing for `SLOW_READER_S`."""

    def __init__(self, stream: asyncio.StreamWriter) -> None:
        self._stream = stream
        self._closed = False

    def write(self, data: bytes) -> None:
        """Queue bytes; nothing once closed."""
        if not self._closed and not self._stream.is_closing():
            self._stream.write(data)

    async def drain(self) -> None:
        """Wait until the client took enough; drop it when it takes nothing."""
        if self._closed or self._stream.is_closing():
            return
        try:
            async with asyncio.timeout(SLOW_READER_S):
                await self._stream.drain()
        except (TimeoutError, OSError):
            self.abort()

    def get_peer_info(self) -> tuple[str, int] | None:
        """Address and port of the client, or None when it is already gone."""
        info = self._stream.get_extra_info("peername")
        return (info[0], info[1]) if info else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """The TLS connection, for the access rule."""
        tls: ssl.SSLObject | None = self._stream.get_extra_info("ssl_object")
        return tls

    async def close(self) -> None:
        """Close after what is queued; a repeated call does nothing."""
        if not self._closed:
            self._closed = True
            self._stream.close()

    def abort(self) -> None:
        """Close now; what is queued is lost."""
        self._closed = True
        self._stream.transport.abort()


@dataclass(slots=True, eq=False)
class _Connection:
    """A live connection of one identity."""

    writer: PacketWriter
    serial: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class TlsFront:
    """The TLS server.

    Args:
        settings: where and whom.
        serve: gives a judged connection to the broker; returns when that connection is over.
        busy: whether the broker has more to do than it should; reading stops meanwhile.
    """

    def __init__(self, settings: TlsFrontSettings, serve: Serve, busy: Callable[[], bool] = lambda: False) -> None:
        self._settings = settings
        self._serve = serve
        self._busy = busy
        self._live: dict[str, _Connection] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._denied_names, self._denied_serials = _List(settings.deny_list), _List(settings.revoked_serials)
        self._server: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; returns the port."""
        self._read_denied()
        self._context = tls_context(self._settings)
        self._certificate_stamp = self._settings.certificate.stat().st_mtime_ns
        self._server = await asyncio.start_server(
            self._accept,
            self._settings.host,
            self._settings.port,
            ssl=self._context,
            ssl_handshake_timeout=CONNECT_TIMEOUT_S,
            backlog=BACKLOG,
        )
        self._watch = asyncio.create_task(self._watch_denied())
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and drop every connection. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._live.values()):
            connection.writer.abort()

    async def _accept(self, stream: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        writer = PacketWriter(out)
        out.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        try:
            tls = writer.get_ssl_info()
            certificate = tls.getpeercert() if tls else None
            identity = identity_of_certificate(certificate)
            if identity is None:
                _LOG.warning("gate_refused client=? reason=certificate names no identity")
                return
            self._read_denied()
            serial = _serial(certificate)
            if identity.name in self._denied_names.entries or serial in self._denied_serials.entries:
                _LOG.warning("gate_refused client=%s reason=revoked", identity.name)
                return
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                head, body = await _read_packet(stream, MAX_CONNECT_BYTES)
            verdict = judge_connect(head, body, identity=identity, topics=self._settings.topics)
            if isinstance(verdict, Refused):
                _LOG.warning("gate_refused client=%s reason=%s", identity.name, verdict.reason)
                writer.write(connack(verdict.code))
                await writer.drain()
                await writer.close()
                return
            reader = PacketReader(
                stream,
                verdict.packet,
                keepalive_s=verdict.keepalive_s,
                limit=self._settings.max_packet_bytes,
                busy=(lambda: False) if identity.server else self._busy,
            )
            await self._hand_over(identity, reader, _Connection(writer, serial))
        except (_Closed, TimeoutError, OSError) as error:
            _LOG.debug("gate_closed error=%r", error)
        finally:
            if not out.is_closing():
                writer.abort()

    async def _hand_over(self, identity: Identity, reader: PacketReader, connection: _Connection) -> None:
        """Serve one connection; the identity's previous one is ended first, so that the library never sees two."""
        lock = self._locks.setdefault(identity.name, asyncio.Lock())
        async with lock:
            previous = self._live.get(identity.name)
            if previous is not None:
                previous.writer.abort()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TAKE_OVER_TIMEOUT_S):
                        await previous.ended.wait()
            self._live[identity.name] = connection
        try:
            await self._serve(reader, connection.writer)
        finally:
            connection.ended.set()
            if self._live.get(identity.name) is connection:
                del self._live[identity.name]
            if not lock.locked() and identity.name not in self._live:
                self._locks.pop(identity.name, None)

    async def _watch_denied(self) -> None:
        while True:
            await asyncio.sleep(DENY_POLL_S)
            self._read_denied()
            self._read_certificate()

    def _read_certificate(self) -> None:
        """Serve a certificate that was made anew, from the next connection on; a half-written pair is read again later."""
        try:
            stamp = self._settings.certificate.stat().st_mtime_ns
            if stamp != self._certificate_stamp:
                self._context.load_cert_chain(self._settings.certificate, self._settings.key)
                self._certificate_stamp = stamp
        except OSError as error:  # SSLError is one
            _LOG.warning("certificate_unreadable error=%r", error)

    def _read_denied(self) -> None:
        """Take changed lists and drop the live connections of whom they name; a broken file changes nothing."""
        names = self._denied_names.read()
        serials = self._denied_serials.read()
        for name, connection in list(self._live.items()) if names or serials else []:
            if name in self._denied_names.entries or connection.serial in self._denied_serials.entries:
                _LOG.warning("gate_dropped client=%s reason=revoked", name)
                connection.writer.abort()


class _List:
    """A JSON list in a file that others change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self.entries: frozenset[str] = frozenset()

    def read(self) -> bool:
        """Read it again where the file changed; whether it did."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return False
            self.entries = frozenset(str(entry) for entry in json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError) as error:
            _LOG.warning("deny_list_unreadable file=%s error=%r", self._path.name, error)
            return False
        self._stamp = stamp
        return True


def _serial(certificate: Mapping[str, Any] | None) -> str:
    """A peer certificate's serial number, lower-case hex; empty where there is none."""
    text = str((certificate or {}).get("serialNumber", ""))
    return f"{int(text, 16):x}" if text else ""
