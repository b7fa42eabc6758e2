"""The server's two clients against real brokers: what they promise about acks, connections and threads."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.broker import KINDS, Client, TestAuthority, running_broker
from tests.support.waiting import wait_until
from wavegate_server.adapters.broker.clients import Ack, Downlink, Uplink
from wavegate_server.adapters.broker.process import RunningBroker
from wavegate_shared.errors import TransferError
from wavegate_shared.topics import Topics

pytestmark = pytest.mark.e2e
TOPICS = Topics()
TM = TOPICS.up(1, "dev-a", "tm")


class World:
    def __init__(self, broker: RunningBroker, authority: TestAuthority) -> None:
        self.broker, self.authority = broker, authority
        self.files = authority.issue("dev-a")

    def device(self) -> Client:
        return Client(self.broker, self.files, self.files.ca, "dev-a")


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with running_broker(tmp_path, request.param) as (broker, authority):
        yield World(broker, authority)


class Received:
    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, Ack]] = []
        self.ack_at_once = True

    def __call__(self, topic: str, payload: bytes, ack: Ack) -> None:
        self.messages.append((topic, payload, ack))
        if self.ack_at_once:
            ack()

    def payloads(self) -> list[bytes]:
        return [payload for _, payload, _ in self.messages]


def uplink(world: World, handler: Received, *, persistent: bool = False) -> Uplink:
    link = Uplink(world.broker.access("ingest-0"), filters=[TOPICS.up_filter()], handler=handler, persistent=persistent)
    link.start()
    assert link.wait_subscribed(10)
    return link


def test_messages_arrive_in_order_with_their_topic(world: World) -> None:
    received = Received()
    link = uplink(world, received)
    with world.device() as device:
        device.publish(TM, *[b"%d" % number for number in range(200)])
        wait_until(lambda: len(received.messages) == 200)
    link.close()
    link.close()
    assert received.payloads() == [b"%d" % number for number in range(200)]
    assert {topic for topic, _, _ in received.messages} == {TM}


def test_acks_may_come_from_another_thread_much_later(world: World) -> None:
    received = Received()
    received.ack_at_once = False
    link = uplink(world, received)
    with world.device() as device:
        device.publish(TM, *[b"%d" % number for number in range(50)])
        wait_until(lambda: len(received.messages) == 50)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda each: each[2](), received.messages))
        device.publish(TM, b"after")
        wait_until(lambda: received.payloads()[-1] == b"after")
    link.close()


@pytest.mark.mosquitto
def test_what_was_not_acked_comes_again_in_a_persistent_session(tmp_path: Path) -> None:
    with running_broker(tmp_path, "mosquitto") as (broker, authority):
        world = World(broker, authority)
        first = Received()
        first.ack_at_once = False
        link = uplink(world, first, persistent=True)
        with world.device() as device:
            device.publish(TM, b"one", b"two")
            wait_until(lambda: len(first.messages) == 2)
            first.messages[0][2]()
            link.close()
            stale = first.messages[1][2]
            second = Received()
            link = uplink(world, second, persistent=True)
            stale()  # of a connection that is over: acknowledges nothing
            wait_until(lambda: b"two" in second.payloads())
            device.publish(TM, b"three")
            wait_until(lambda: b"three" in second.payloads())
            link.close()
        assert b"one" not in second.payloads()


def test_both_links_come_back_after_the_broker_died(world: World) -> None:
    received = Received()
    link = uplink(world, received)
    down = Downlink(world.broker.access("publisher"))
    down.start()
    assert down.wait_connected(10)
    pid = world.broker.pid
    assert pid is not None
    os.kill(pid, 9)
    wait_until(lambda: not down.connected)
    assert down.offer(TM, b"lost", 1) is False
    down.publish(TM, b"waits for the connection", 1)
    assert link.wait_subscribed(10)
    down.publish(TM, b"after", 1)
    wait_until(lambda: b"after" in received.payloads())
    down.close()
    link.close()


def test_publish_is_for_many_threads(world: World) -> None:
    down = Downlink(world.broker.access("publisher"))
    down.start()
    with world.device() as device:
        device.subscribe(TOPICS.device_filter("dev-a"))
        with ThreadPoolExecutor(8) as pool:
            for number in range(100):
                pool.submit(down.publish, TOPICS.chunks("dev-a"), b"%d" % number, number % 2)
        wait_until(lambda: set(device.payloads()) >= {b"%d" % number for number in range(100)})
    down.close()


def test_a_chunk_of_full_size_arrives_whole(world: World) -> None:
    down = Downlink(world.broker.access("publisher"))
    down.start()
    chunk = os.urandom(120 * 1024)
    with world.device() as device:
        device.subscribe(TOPICS.device_filter("dev-a"))
        down.publish(TOPICS.chunks("dev-a"), chunk, 0)
        device.wait_for(chunk)
    down.close()


def test_publish_gives_up_and_says_so(world: World) -> None:
    down = Downlink(world.broker.access("publisher"))
    with pytest.raises(TransferError, match="not_connected"):
        down.publish(TM, b"x", 1, timeout_s=0.3)


def test_closing_ends_a_publish_that_waits(world: World) -> None:
    down = Downlink(world.broker.access("publisher"))
    outcome: list[Exception] = []

    def publish() -> None:
        try:
            down.publish(TM, b"x", 1)
        except TransferError as error:
            outcome.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    down.close()
    thread.join(10)
    assert [str(error)[:13] for error in outcome] == ["not_connected"]
