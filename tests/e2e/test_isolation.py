"""One device can do nothing to another, on either broker: judged by what is delivered, never by SUBACK codes."""

import os
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.broker import KINDS, Client, Files, TestAuthority, running_broker, tls_client
from wavegate_server.adapters.broker.process import RunningBroker
from wavegate_shared.topics import Topics

pytestmark = pytest.mark.e2e

TOPICS = Topics()
A, B = "dev-a", "dev-b"
SERVER = "ingest-0"
B_CMD = TOPICS.cmd(B)
B_UP = TOPICS.up(3, B, "ev")


@dataclass
class World:
    """A broker, two devices' identities and a client of the server."""

    broker: RunningBroker
    authority: TestAuthority
    a: Files
    b: Files

    @property
    def ca(self) -> Path:
        return self.a.ca

    def device(self, name: str, **options: object) -> Client:
        files = self.a if name == A else self.b
        return Client(self.broker, files, self.ca, name, **options)  # type: ignore[arg-type]  # passed on as they are

    def server(self, name: str = SERVER) -> Client:
        return Client(self.broker, self.authority.service(name), self.ca, name)


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_broker(tmp_path_factory.mktemp("broker"), request.param) as (broker, authority):
        yield World(broker, authority, authority.issue(A), authority.issue(B))


def victim_still_served(victim: Client, server: Client, token: bytes) -> None:
    """Both ways: a command reaches the victim, and the victim's word reaches the server."""
    server.publish(B_CMD, b"to " + token)
    victim.wait_for(b"to " + token)
    victim.publish(B_UP, b"from " + token)
    server.wait_for(b"from " + token)


FOREIGN_FILTERS = [
    B_CMD,
    TOPICS.chunks(B),
    TOPICS.device_filter(B),
    f"{TOPICS.prefix}/d/+/cmd",
    f"{TOPICS.prefix}/d/+/+",
    f"{TOPICS.prefix}/d/#",
    f"{TOPICS.prefix}/#",
    "+/+/+/+/cmd",
    "#",
    B_UP,
    f"{TOPICS.prefix}/up/+/+/+",
    f"{TOPICS.prefix}/up/#",
    f"$share/g/{B_CMD}",
    f"$share/g/{TOPICS.prefix}/d/#",
    "$share/g/#",
    "$SYS/#",
]


def test_a_device_reads_nothing_of_another(world: World) -> None:
    with world.server() as server, world.device(B) as victim, world.device(A) as thief:
        server.subscribe(TOPICS.up_filter())
        victim.subscribe(TOPICS.device_filter(B))
        for each in FOREIGN_FILTERS:
            thief.subscribe(each)
        thief.subscribe(TOPICS.device_filter(A))
        victim_still_served(victim, server, b"read")
        server.publish(TOPICS.chunks(B), b"chunk of b", qos=0)
        victim.wait_for(b"chunk of b")
        server.publish(TOPICS.cmd(A), b"mark")  # delivered after everything above
        thief.wait_for(b"mark")
        assert set(thief.payloads()) == {b"mark"}


@pytest.mark.parametrize(
    "topic",
    [
        B_UP,
        TOPICS.up(0, B, "tm"),
        B_CMD,
        TOPICS.cmd(A),
        f"{TOPICS.prefix}/x/7/c",
        f"{TOPICS.prefix}/up/3/{B}/{A}/ev",
        "other/topic",
    ],
)
def test_a_device_publishes_only_as_itself(world: World, topic: str) -> None:
    with world.server() as server, world.device(B) as victim, world.device(A) as thief:
        server.subscribe("#")
        victim.subscribe(TOPICS.device_filter(B), f"{TOPICS.prefix}/x/+/c")
        thief.publish(topic, b"forged")
        if thief.connected:
            thief.publish(TOPICS.up(0, A, "ev"), b"own word")
            server.wait_for(b"own word")
        victim_still_served(victim, server, b"publish " + topic.encode())
        assert b"forged" not in server.payloads() + victim.payloads()


@pytest.mark.parametrize("topic", [B_UP, B_CMD, f"{TOPICS.prefix}/x/1/c"])
def test_a_will_on_a_foreign_topic_is_never_published(world: World, topic: str) -> None:
    with world.server() as server, world.device(B) as victim:
        server.subscribe("#")
        victim.subscribe(TOPICS.device_filter(B), f"{TOPICS.prefix}/x/+/c")
        thief = world.device(A, will=topic)
        if thief.open():
            thief.cut()
            thief.wait_disconnected()
        thief.close()
        victim_still_served(victim, server, b"will " + topic.encode())
        assert b"will" not in server.payloads() + victim.payloads()


def test_a_will_on_an_own_topic_is_published(world: World) -> None:
    with world.server() as server:
        server.subscribe(TOPICS.up_filter())
        device = world.device(A, will=TOPICS.up(0, A, "ev"))
        assert device.open()
        device.cut()
        server.wait_for(b"will")
        device.close()


def test_a_strangers_certificate_neither_kicks_nor_silences_a_device(world: World) -> None:
    """The attack that works on the broker library alone: CONNECT with the victim's client id."""
    with world.server() as server, world.device(B) as victim:
        server.subscribe(TOPICS.up_filter())
        victim.subscribe(TOPICS.device_filter(B))
        for _ in range(3):
            thief = Client(world.broker, world.a, world.ca, B)
            thief.open()
            thief.close()
        victim_still_served(victim, server, b"kick")
        assert victim.connections == 1
        assert victim.connected


def test_a_device_cannot_pose_as_the_server(world: World) -> None:
    with world.server() as server, world.device(B) as victim:
        server.subscribe(TOPICS.up_filter())
        victim.subscribe(TOPICS.device_filter(B))
        thief = Client(world.broker, world.a, world.ca, SERVER)
        if thief.open():  # Mosquitto renames it to its certificate's name
            thief.subscribe("#")
            thief.publish(B_CMD, b"forged")
        thief.close()
        victim_still_served(victim, server, b"pose")
        assert b"forged" not in victim.payloads()


def test_no_certificate_is_refused(world: World) -> None:
    assert not _talks(world.broker, tls_client(None, world.ca), A)


def test_a_certificate_of_another_authority_is_refused(world: World, tmp_path: Path) -> None:
    foreign = TestAuthority(tmp_path / "foreign").issue(A)
    assert not _talks(world.broker, tls_client(foreign, world.ca), A)


def test_an_expired_certificate_is_refused(world: World) -> None:
    expired = world.authority.issue("dev-old", days=-1)
    assert not _talks(world.broker, tls_client(expired, world.ca), "dev-old")


def test_a_good_certificate_is_accepted(world: World) -> None:
    """What the three refusals above are measured against."""
    assert _talks(world.broker, tls_client(world.a, world.ca), A)


def test_without_tls_nothing_is_answered(world: World) -> None:
    with socket.create_connection((world.broker.host, world.broker.port), timeout=5) as plain:
        plain.settimeout(5)
        plain.sendall(_connect_packet(A))
        try:
            answer = plain.recv(4)
        except OSError:
            answer = b""
    assert answer[:1] != b"\x20"


def test_a_reconnect_after_a_dropped_network_works_at_once(world: World) -> None:
    """The broker still holds the old connection when the device comes back."""
    with world.server() as server, world.device(B) as old:
        old.subscribe(TOPICS.device_filter(B))
        for attempt in range(3):
            with world.device(B) as new:
                new.subscribe(TOPICS.device_filter(B))
                server.publish(B_CMD, b"after %d" % attempt)
                new.wait_for(b"after %d" % attempt)
        old.wait_disconnected()


def test_retained_messages_reach_nobody(world: World) -> None:
    """One broker library hands retained messages to clients that may not read them."""
    device = world.device(B)
    assert device.open()
    device.publish(B_UP, b"retained", retain=True)
    device.close()
    with world.server("ingest-1") as late, world.device(A) as other:
        late.subscribe("#")
        other.subscribe(TOPICS.device_filter(A))
        late.publish(TOPICS.cmd(A), b"mark")
        other.wait_for(b"mark")
        late.wait_for(b"mark")
        assert b"retained" not in late.payloads() + other.payloads()


def test_a_revoked_device_falls_silent_and_stays_out(tmp_path: Path, world: World) -> None:
    with running_broker(tmp_path, world.broker.kind) as (broker, authority):
        a, b = authority.issue(A), authority.issue(B)
        with Client(broker, authority.service(SERVER), a.ca, SERVER) as server, Client(broker, b, a.ca, B) as healthy:
            server.subscribe(TOPICS.up_filter())
            with Client(broker, a, a.ca, A) as revoked:
                revoked.publish(TOPICS.up(0, A, "ev"), b"before")
                server.wait_for(b"before")
                broker.deny({A: a.serial})
                _until_silent(server, revoked)
            assert _eventually(lambda: not _talks(broker, tls_client(a, a.ca), A))
            healthy.publish(B_UP, b"healthy")
            server.wait_for(b"healthy")
            assert healthy.connections == 1


def test_the_broker_comes_back_after_it_died(tmp_path: Path, world: World) -> None:
    with running_broker(tmp_path, world.broker.kind) as (broker, authority):
        files = authority.issue(A)
        first = broker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert _eventually(lambda: broker.pid not in (None, first))
        assert _eventually(lambda: _talks(broker, tls_client(files, files.ca), A))


def _until_silent(server: Client, revoked: Client) -> None:
    """Until a word of the revoked device no longer arrives (its connection may or may not be cut)."""

    def silent() -> bool:
        before = len(server.payloads())
        if not revoked.connected:
            return True
        revoked.publish(TOPICS.up(0, A, "ev"), b"still here")
        server.publish(TOPICS.up(0, SERVER, "ev"), b"mark %d" % before)
        server.wait_for(b"mark %d" % before)
        return b"still here" not in server.payloads()[before:]

    assert _eventually(silent)


def _eventually(condition: Callable[[], bool]) -> bool:
    pause = threading.Event()
    for _ in range(200):
        if condition():
            return True
        pause.wait(0.05)
    return False


def _connect_packet(client_id: str) -> bytes:
    body = b"\x00\x04MQTT\x04\x02\x00\x1e" + struct.pack("!H", len(client_id)) + client_id.encode()
    return bytes((0x10, len(body))) + body


def _talks(broker: RunningBroker, context: ssl.SSLContext, client_id: str) -> bool:
    """Whether a client with these TLS settings gets a CONNACK that accepts it."""
    try:
        with (
            socket.create_connection((broker.host, broker.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=broker.host) as tls,
        ):
            tls.sendall(_connect_packet(client_id))
            return tls.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False
