"""The ingest's threads: ack after commit, retry, isolation of what cannot be stored, requests, answers; and on real brokers."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from tests.support.broker import KINDS, Client, running_broker
from tests.support.ingest import NOW, Handlers, database, hello, rows, state, window
from tests.support.waiting import wait_until
from wavegate_server.adapters.broker.clients import Downlink
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import Device, TelemetryWindow
from wavegate_server.config import Settings
from wavegate_server.services.ingest.service import Ingest
from wavegate_shared.errors import TransferError
from wavegate_shared.topics import Topics
from wavegate_shared.wire import MAX_MESSAGE_BYTES, Stored, TimeRequest, Up, decode_down, encode

TOPICS = Topics()


class Answers:
    """Notes the `Stored` messages."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, object]] = []

    def offer(self, topic: str, payload: bytes, qos: int) -> bool:
        self.sent.append((topic, decode_down(payload)))
        return True


class Requests:
    """Notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []
        self.fail = False

    def handle(self, device_id: str, message: object) -> None:
        self.asked.append((device_id, message))
        if self.fail:
            raise TransferError("document_missing")


class World:
    def __init__(self, directory: Path) -> None:
        self.engine: Engine = database(directory, {"dev-1": "active", "dev-2": "active", "dev-gone": "revoked"})
        self.handlers, self.answers, self.requests = Handlers(), Answers(), Requests()
        self.revoked: list[Mapping[str, str]] = []
        self.acked: list[str] = []
        self.ingest = Ingest(
            self.engine,
            Settings(data_dir=directory),
            self.answers,
            self.handlers,
            self.requests,
            on_revoked=self.revoked.append,
            now=lambda: NOW,
        )

    def send(self, device: str, up: Up | bytes, channel: str = "tm", name: str = "") -> None:
        payload = up if isinstance(up, bytes) else encode(up)
        self.ingest.receive(TOPICS.up(1, device, channel), payload, lambda: self.acked.append(name))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ingest.close()


def test_an_ack_means_that_the_rows_are_there(world: World) -> None:
    seen: list[int] = []
    world.ingest.receive(
        TOPICS.up(1, "dev-1", "tm"), encode(window(1)), lambda: seen.append(len(rows(world.engine, TelemetryWindow)))
    )
    assert seen == []
    world.ingest.start()
    wait_until(lambda: bool(seen))
    assert seen == [1]


def test_devices_are_told_up_to_where_all_is_stored(world: World) -> None:
    for seq in (1, 2, 3):
        world.send("dev-1", window(seq))
    world.ingest.start()
    wait_until(lambda: bool(world.answers.sent))
    assert world.answers.sent == [(TOPICS.cmd("dev-1"), Stored(boot=1, seq=3))]


def test_a_database_that_is_away_delays_and_loses_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    left = [2]

    def away(_message: object) -> None:
        if left[0]:
            left[0] -= 1
            raise OperationalError("INSERT", {}, RuntimeError("database is locked"))

    world.handlers.fail = away
    world.send("dev-1", window(1))
    world.send("dev-1", state(2))
    world.ingest.start()
    wait_until(lambda: len(world.acked) == 2)
    assert len(rows(world.engine, TelemetryWindow)) == 1
    assert len(world.handlers.applied) == 1
    assert world.ingest.counters().retries == 2
    assert "ingest_retry messages=2" in caplog.text


def test_one_message_that_breaks_the_writer_costs_only_itself(world: World) -> None:
    def broken(message: object) -> None:
        if message == state(5):
            raise KeyError("a bug in a handler")

    world.handlers.fail = broken
    for seq in range(1, 5):
        world.send("dev-1", window(seq))
    world.send("dev-1", state(5))
    for seq in range(6, 10):
        world.send("dev-1", window(seq))
    world.ingest.start()
    wait_until(lambda: len(world.acked) == 9)
    assert len(rows(world.engine, TelemetryWindow)) == 8
    counters = world.ingest.counters()
    assert (counters.received, counters.stored, counters.malformed, counters.waiting) == (9, 8, 1, 0)


def test_malformed_messages_are_acked_counted_and_named_once_a_minute(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.ingest.start()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            world.send("dev-1", b"garbage")
        world.send("dev-2", b"\x01" + b"x" * MAX_MESSAGE_BYTES)
        world.ingest.receive("other/topic", b"", lambda: world.acked.append("other"))
        wait_until(lambda: len(world.acked) == 7)
        wait_until(lambda: world.ingest.counters().malformed == 7)
    assert caplog.text.count("message_refused device=dev-1 code=message_malformed") == 1
    assert caplog.text.count("message_refused device=dev-2 code=message_malformed") == 1
    assert "garbage" not in caplog.text


def test_a_device_that_may_not_speak_is_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.ingest.start()
    world.send("nobody", window(1))
    world.send("dev-gone", window(1))
    world.send("dev-gone", TimeRequest(nonce="0" * 16), "rq")
    wait_until(lambda: world.ingest.counters().unknown_device == 3)
    assert len(world.acked) == 3
    assert world.requests.asked == []
    assert "message_refused device=nobody code=unknown_device" in caplog.text


def test_a_device_enrolled_just_now_is_heard(world: World) -> None:
    world.ingest.start()
    world.send("dev-1", window(1))
    wait_until(lambda: len(world.acked) == 1)
    with write(world.engine) as session:
        session.add(Device(id="dev-new", hardware_class="c", site="s", shard=0, state="active", created_at=NOW))
    pause = threading.Event()
    seq = iter(range(1, 1000))

    def heard() -> bool:
        world.send("dev-new", window(next(seq)))
        pause.wait(0.02)
        return any(each.device_id == "dev-new" for each in rows(world.engine, TelemetryWindow))

    wait_until(heard, timeout_s=3.0)


def test_requests_bypass_the_database(world: World) -> None:
    world.send("dev-1", TimeRequest(nonce="0" * 16), "rq", name="request")
    assert world.acked == ["request"]  # before any writer runs
    wait_until(lambda: world.requests.asked == [("dev-1", TimeRequest(nonce="0" * 16))])


def test_a_request_that_fails_or_is_none_is_counted(world: World) -> None:
    world.requests.fail = True
    world.send("dev-1", TimeRequest(nonce="0" * 16), "rq")
    world.send("dev-1", window(1), "rq")
    wait_until(lambda: world.ingest.counters().malformed == 2)


def test_a_request_on_the_telemetry_channel_is_malformed(world: World) -> None:
    world.ingest.start()
    world.send("dev-1", TimeRequest(nonce="0" * 16), "tm")
    wait_until(lambda: world.ingest.counters().malformed == 1)


def test_revocations_are_told_at_the_start_and_when_they_change(world: World) -> None:
    world.ingest.start()
    wait_until(lambda: world.revoked == [{"dev-gone": "serial-dev-gone"}])
    with write(world.engine) as session:
        device = session.get(Device, "dev-2")
        assert device is not None
        device.state = "revoked"
        session.add(device)
    wait_until(lambda: len(world.revoked) == 2)
    assert world.revoked[1] == {"dev-gone": "serial-dev-gone", "dev-2": "serial-dev-2"}


def test_closing_acks_nothing_that_waits(world: World) -> None:
    world.send("dev-1", window(1))
    world.ingest.close()
    world.send("dev-1", window(2))
    assert world.acked == []
    world.ingest.close()


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_over_a_broker_each_message_counts_once_through_a_restart_of_the_ingest(tmp_path: Path, kind: str) -> None:
    """A device with an outbox: it sends everything again until the server says `stored`."""
    with running_broker(tmp_path / "broker", kind) as (broker, authority):
        engine = database(tmp_path, {"dev-1": "active"})
        downlink = Downlink(broker.access("publisher"))
        downlink.start()
        assert downlink.wait_connected(10)
        files = authority.issue("dev-1")

        def ingest() -> Ingest:
            made = Ingest(engine, Settings(data_dir=tmp_path), downlink, Handlers(), Requests())
            made.start(broker.access("ingest-0"), persistent=broker.keeps_sessions)
            assert made.wait_connected(10)
            return made

        def send(device: Client, upto: int) -> None:
            device.publish(TOPICS.up(2, "dev-1", "ev"), encode(hello()))
            for seq in range(1, upto + 1):
                device.publish(TOPICS.up(2, "dev-1", "tm"), encode(window(seq)))

        with Client(broker, files, files.ca, "dev-1") as device:
            device.subscribe(TOPICS.device_filter("dev-1"))
            first = ingest()
            send(device, 30)
            device.wait_for(encode(Stored(boot=1, seq=30)))
            first.close()
            second = ingest()
            send(device, 60)
            device.wait_for(encode(Stored(boot=1, seq=60)))
            second.close()
        starts = [each.start for each in rows(engine, TelemetryWindow)]
        downlink.close()
    assert (len(starts), len(set(starts))) == (60, 60)


def test_the_condition_helper_can_fail() -> None:
    never: Callable[[], bool] = lambda: False  # noqa: E731
    with pytest.raises(AssertionError):
        wait_until(never, timeout_s=0.05)
