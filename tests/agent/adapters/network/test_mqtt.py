"""The connection against a real broker over mutual TLS: comes up, comes back, and loses nothing it said it had."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wavegate_agent.adapters.network.mqtt import Address, BrokerConnection, wait_s
from wavegate_shared.topics import Topics

pytest.importorskip("wavegate_server", reason="the broker is the server's")
from tests.support.broker import KINDS, Client, TestAuthority, running_broker
from wavegate_server.adapters.broker.process import RunningBroker

TOPICS = Topics()
WAIT_S = 10.0


class Ends:
    """A connection and what it was told."""

    def __init__(self, broker: RunningBroker, authority: TestAuthority, device: str = "kiosk-1") -> None:
        files = authority.issue(device)
        self.received: list[tuple[str, bytes]] = []
        self.changed = threading.Condition()
        self.ups = self.acks = 0
        self.connection = BrokerConnection(
            Address(
                host="localhost",
                port=broker.port,
                device=device,
                topics=TOPICS,
                ca=files.ca,
                certificate=files.certificate,
                key=files.key,
            ),
            on_message=self.message,
            on_connected=self.up,
            on_acked=self.acked,
        )

    def message(self, topic: str, payload: bytes) -> None:
        with self.changed:
            self.received.append((topic, payload))
            self.changed.notify_all()

    def up(self) -> None:
        with self.changed:
            self.ups += 1
            self.changed.notify_all()

    def acked(self) -> None:
        with self.changed:
            self.acks += 1
            self.changed.notify_all()

    def wait(self, what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: eval(what, {"self": self}), WAIT_S), what

    def __enter__(self) -> "Ends":
        self.connection.start()
        self.wait("self.ups == 1")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connection.stop()


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RunningBroker, TestAuthority]]:
    with running_broker(tmp_path, request.param) as running:
        yield running


def test_messages_go_both_ways(broker: tuple[RunningBroker, TestAuthority]) -> None:
    running, authority = broker
    publisher, ingest = authority.service("publisher"), authority.service("ingest-0")
    with (
        Ends(*broker) as device,
        Client(running, publisher, publisher.ca, "publisher") as down,
        Client(running, ingest, ingest.ca, "ingest-0") as up,
    ):
        up.subscribe(TOPICS.up_filter())
        assert device.connection.publish(TOPICS.up(3, "kiosk-1", "ev"), b"hello")
        up.wait_for(b"hello")
        down.publish(TOPICS.cmd("kiosk-1"), b"order")
        device.wait("('wavegate/v1/d/kiosk-1/cmd', b'order') in self.received")
        device.wait("self.acks == 1")
        assert device.connection.room == 20


def test_it_comes_back_when_the_broker_does(tmp_path: Path) -> None:
    with running_broker(tmp_path, "embedded") as broker, Ends(*broker) as device:
        pid = broker[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        device.wait("self.ups == 2")
        assert device.connection.publish(TOPICS.up(3, "kiosk-1", "ev"), b"again")


def test_without_a_broker_nothing_is_taken(tmp_path: Path) -> None:
    with running_broker(tmp_path, "embedded") as broker:
        device = Ends(*broker)
    device.connection.start()
    assert not device.connection.publish(TOPICS.up(3, "kiosk-1", "ev"), b"lost")
    device.connection.stop()


def test_stopping_twice_or_before_starting_is_harmless(tmp_path: Path) -> None:
    with running_broker(tmp_path, "embedded") as broker:
        device = Ends(*broker)
        device.connection.stop()


@pytest.mark.parametrize(("failures", "most"), [(0, 1.0), (1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (10**6, 60.0)])
def test_waits_grow_to_a_minute_and_are_spread_over_the_whole(failures: int, most: float) -> None:
    assert wait_s(failures, 0.0) == 0.0
    assert wait_s(failures, 0.999) == pytest.approx(most, rel=0.01)
