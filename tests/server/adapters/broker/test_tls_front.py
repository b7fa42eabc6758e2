"""The gate alone, in front of a fake broker: what it lets through, and when it ends a connection."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from amqtt.adapters import ReaderAdapter, WriterAdapter

from tests.support.broker import Files, TestAuthority, tls_client
from wavegate_server.adapters.broker.tls_front import PacketReader, PacketWriter, TlsFront, TlsFrontSettings
from wavegate_shared.topics import Topics


def connect_packet(client_id: str, *, keepalive: int = 30, flags: int = 2) -> bytes:
    body = b"\x00\x04MQTT\x04" + bytes((flags,)) + struct.pack("!HH", keepalive, len(client_id)) + client_id.encode()
    return bytes((0x10, len(body))) + body


def publish_packet(size: int) -> bytes:
    body = b"\x00\x01t" + b"x" * (size - 3)
    length = bytearray()
    while True:
        size, byte = size >> 7, size & 0x7F
        length.append(byte | 0x80 if size else byte)
        if not size:
            return b"\x30" + bytes(length) + body


@dataclass
class FakeBroker:
    """Accepts, then reads packets until the end."""

    packets: list[bytes] = field(default_factory=list)
    live: int = 0
    most_live: int = 0
    served: int = 0
    no_delay: int = 0

    async def serve(self, reader: ReaderAdapter, writer: WriterAdapter) -> None:
        self.served += 1
        if isinstance(writer, PacketWriter):
            connection = writer._stream.get_extra_info("socket")
            self.no_delay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self.live += 1
        self.most_live = max(self.most_live, self.live)
        try:
            while True:
                packet = await reader.read(-1)
                if packet[0] == 0x10:
                    writer.write(b"\x20\x02\x00\x00")
                    await writer.drain()
                self.packets.append(packet)
        except asyncio.IncompleteReadError:
            await asyncio.sleep(0)
        finally:
            await writer.close()
            self.live -= 1


@dataclass
class World:
    broker: FakeBroker
    gate: TlsFront
    port: int
    authority: TestAuthority
    deny_list: Path

    async def open(self, files: Files | None, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = tls_client(files, self.authority.service("publisher").ca)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        writer.write(first)
        return reader, writer


def run(tmp_path: Path, story: Callable[[World], Awaitable[None]], *, busy: Callable[[], bool] = lambda: False) -> None:
    async def main() -> None:
        authority = TestAuthority(tmp_path / "ca")
        files = authority.service("broker")
        broker = FakeBroker()
        deny_list = tmp_path / "revoked.json"
        settings = TlsFrontSettings(
            "127.0.0.1",
            0,
            files.ca,
            files.certificate,
            files.key,
            deny_list,
            authority.crl_path.with_suffix(".json"),
            Topics(),
            max_packet_bytes=10_000,
        )
        gate = TlsFront(settings, broker.serve, busy)
        world = World(broker, gate, await gate.start(), authority, deny_list)
        try:
            async with asyncio.timeout(20):
                await story(world)
        finally:
            await gate.stop()
            await gate.stop()

    asyncio.run(main())


async def ends(reader: asyncio.StreamReader) -> bytes:
    """Everything until the gate closes the connection."""
    try:
        return await reader.read(-1)
    except OSError:
        return b""


def test_a_good_client_is_handed_over_with_its_packets(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.open(world.authority.issue("dev-a"), connect_packet("dev-a"))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        assert world.broker.no_delay == 1
        writer.write(publish_packet(200) + b"\xe0\x00")
        writer.close()
        while len(world.broker.packets) < 3:
            await asyncio.sleep(0.01)
        assert world.broker.packets == [connect_packet("dev-a", keepalive=0), publish_packet(200), b"\xe0\x00"]

    run(tmp_path, story)


def test_a_foreign_name_gets_a_refusal_and_the_broker_never_hears_of_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.open(world.authority.issue("dev-a"), connect_packet("dev-b"))
        assert await ends(reader) == b"\x20\x02\x00\x02"
        assert world.broker.served == 0
        writer.close()

    run(tmp_path, story)


def test_a_certificate_that_names_nobody_is_refused(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        files = world.authority.issue("twice", names=("dev-a", "dev-b"))
        reader, writer = await world.open(files, connect_packet("dev-a"))
        assert await ends(reader) == b""
        assert world.broker.served == 0
        writer.close()

    run(tmp_path, story)


@pytest.mark.parametrize("first", [b"\x10\xff\xff\xff\xff\xff", b"\x10\xff\xff\x7f", b"GET / HTTP/1.1\r\n\r\n" * 9])
def test_a_first_packet_too_large_or_none_ends_at_once(tmp_path: Path, first: bytes) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.open(world.authority.issue("dev-a"), first)
        assert (await ends(reader))[:1] in (b"", b"\x20")
        assert world.broker.served == 0
        writer.close()

    run(tmp_path, story)


def test_a_client_that_says_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegate_server.adapters.broker.tls_front.CONNECT_TIMEOUT_S", 0.5)

    async def story(world: World) -> None:
        reader, writer = await world.open(world.authority.issue("dev-a"))
        assert await ends(reader) == b""
        writer.close()

    run(tmp_path, story)


def test_a_packet_over_the_bound_ends_the_connection(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.open(world.authority.issue("dev-a"), connect_packet("dev-a"))
        await reader.readexactly(4)
        writer.write(publish_packet(9_000))
        writer.write(publish_packet(10_001))
        assert await ends(reader) == b""
        assert len(world.broker.packets) == 2
        writer.close()

    run(tmp_path, story)


def test_silence_past_the_keepalive_ends_the_connection(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.open(world.authority.issue("dev-a"), connect_packet("dev-a", keepalive=1))
        await reader.readexactly(4)
        assert await ends(reader) == b""
        writer.close()

    run(tmp_path, story)


def test_a_second_connection_of_the_same_identity_ends_the_first_before_it_is_served(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        files = world.authority.issue("dev-a")
        first, first_out = await world.open(files, connect_packet("dev-a"))
        await first.readexactly(4)
        for _ in range(3):
            second, second_out = await world.open(files, connect_packet("dev-a"))
            assert await second.readexactly(4) == b"\x20\x02\x00\x00"
            assert await ends(first) == b""
            first_out.close()
            first, first_out = second, second_out
        assert (world.broker.served, world.broker.most_live) == (4, 1)
        first_out.close()

    run(tmp_path, story)


def test_other_identities_live_side_by_side(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        opened = [await world.open(world.authority.issue(name), connect_packet(name)) for name in ("a", "b", "c")]
        for reader, _ in opened:
            await reader.readexactly(4)
        assert world.broker.most_live == 3
        for _, writer in opened:
            writer.close()

    run(tmp_path, story)


def test_a_revoked_identity_is_dropped_and_stays_out_until_it_is_taken_off(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        files = world.authority.issue("dev-a")
        reader, writer = await world.open(files, connect_packet("dev-a"))
        await reader.readexactly(4)
        world.deny_list.write_text(json.dumps({"dev-a": "77"}))
        assert await ends(reader) == b""
        writer.close()
        reader, writer = await world.open(files, connect_packet("dev-a"))
        assert await ends(reader) == b""
        writer.close()
        fresh = world.deny_list.with_suffix(".new")
        fresh.write_text("[]")
        os.replace(fresh, world.deny_list)
        reader, writer = await world.open(files, connect_packet("dev-a"))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        writer.close()

    run(tmp_path, story)


def test_a_damaged_deny_list_changes_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.deny_list.write_text('["dev-b"')
        reader, writer = await world.open(world.authority.issue("dev-a"), connect_packet("dev-a"))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        writer.close()

    run(tmp_path, story)


def test_a_busy_broker_stops_the_reading_of_devices(tmp_path: Path) -> None:
    free = asyncio.Event()

    async def story(world: World) -> None:
        reader, writer = await world.open(world.authority.issue("dev-a"), connect_packet("dev-a"))
        await reader.readexactly(4)
        writer.write(publish_packet(50))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(world.broker.packets) == 1
        free.set()
        while len(world.broker.packets) < 2:
            await asyncio.sleep(0.01)
        writer.close()

    run(tmp_path, story, busy=lambda: not free.is_set())


def test_the_reader_gives_bytes_as_they_are_asked_for() -> None:
    async def story() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(b"\xc0\x00")
        stream.feed_eof()
        reader = PacketReader(stream, b"first", keepalive_s=0, limit=100, busy=lambda: False)
        assert [await reader.read(2), await reader.read(0), await reader.read(-1)] == [b"fi", b"", b"rst"]
        assert await reader.read(1) == b"\xc0"
        assert await reader.read(1) == b"\x00"
        for _ in range(2):
            with pytest.raises(asyncio.IncompleteReadError):
                await reader.read(1)

    asyncio.run(story())


def test_feed_eof_ends_after_the_packet_in_hand() -> None:
    async def story() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(b"\xc0\x00")
        reader = PacketReader(stream, b"first", keepalive_s=0, limit=100, busy=lambda: False)
        reader.feed_eof()
        assert await reader.read(5) == b"first"
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.read(1)

    asyncio.run(story())
