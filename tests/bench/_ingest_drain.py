"""The processes that drain the backlog of the ingest bench: `python -m tests.bench._ingest_drain PLAN`.

Prints `ready`, then one line of JSON with the seconds from the first message to the last acknowledgement.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from sqlmodel import Session

from tests.support.broker import tls_client
from wavegate_server.adapters.broker.clients import Downlink, MqttAccess, Uplink
from wavegate_server.adapters.database.connection import open_engine
from wavegate_server.adapters.database.tables import TelemetryWindow, Watermark
from wavegate_server.config import Settings
from wavegate_server.services.ingest.service import Ingest
from wavegate_shared.topics import Topics
from wavegate_shared.wire import Window, decode_up

TOPICS = Topics()
SUBSCRIBER = "ingest-0"
DRAIN_TIMEOUT_S = 120.0


class _Stopwatch:
    """From the first message to the last acknowledgement."""

    def __init__(self, messages: int) -> None:
        self._left = messages
        self._first = self._first_cpu = 0.0
        self.seconds = self.cpu_s = 0.0
        self.done = threading.Event()

    def received(self) -> None:
        if not self._first:
            self._first, self._first_cpu = time.perf_counter(), time.process_time()

    def finished(self, messages: int) -> None:
        self._left -= messages
        if self._left <= 0 and not self.done.is_set():
            self.seconds = time.perf_counter() - self._first
            self.cpu_s = time.process_time() - self._first_cpu
            self.done.set()


class NoHandlers:
    def apply(self, *_: object) -> None:
        """Telemetry only."""

    def handle(self, *_: object) -> None:
        """Telemetry only."""


def _access(plan: dict[str, Any], identity: str) -> MqttAccess:
    directory = Path(plan["identities"])
    return MqttAccess(
        plan["host"],
        plan["port"],
        identity,
        directory / "ca.pem",
        directory / f"{identity}.pem",
        directory / f"{identity}.key",
    )


def _count_only(plan: dict[str, Any], watch: _Stopwatch) -> None:
    access = _access(plan, SUBSCRIBER)
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=SUBSCRIBER, clean_session=not plan["persistent"], manual_ack=True
    )
    client.tls_set_context(tls_client(access, access.ca))  # type: ignore[arg-type]  # the same three fields

    def on_message(_client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        watch.received()
        client.ack(message.mid, message.qos)
        watch.finished(1)

    client.on_message = on_message
    client.on_connect = subscribe
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect(access.host, access.port)
    client.loop_start()
    _ready(plan, subscribed.wait)


def subscribe(client: paho.Client, *_: Any) -> None:
    """On connect: all that devices say, at QoS 1."""
    client.subscribe(TOPICS.up_filter(), qos=1)


def _ready(plan: dict[str, Any], subscribed: Callable[[float], bool]) -> None:
    """Tell the parent: at once where the backlog waits in the session, else once windows may be published."""
    if not plan["persistent"]:
        subscribed(20.0)
    print("ready", flush=True)


def _end_to_end(plan: dict[str, Any], watch: _Stopwatch) -> None:
    engine = open_engine(f"sqlite:///{plan['database']}")
    downlink = Downlink(_access(plan, "publisher"))
    downlink.start()
    downlink.wait_connected(20)
    nothing = NoHandlers()
    ingest = _Watched(engine, Settings(), downlink, nothing, nothing)
    ingest.watch = watch
    ingest.start(_access(plan, SUBSCRIBER), persistent=plan["persistent"])
    _ready(plan, ingest.wait_connected)


class _Watched(Ingest):
    watch: _Stopwatch

    def receive(self, topic: str, payload: bytes, ack: Callable[[], None]) -> None:
        self.watch.received()
        super().receive(topic, payload, ack)

    def _settle(self, written: Any) -> None:
        super()._settle(written)
        self.watch.finished(written.stored)


def _orm(plan: dict[str, Any], watch: _Stopwatch, commit_every: int) -> None:
    """What a first version of an ingest looks like: a row object and a merge a message."""
    engine = open_engine(f"sqlite:///{plan['database']}").execution_options(wavegate_write=True)
    session = Session(engine)
    acks: list[Callable[[], None]] = []

    def handle(topic: str, payload: bytes, ack: Callable[[], None]) -> None:
        watch.received()
        up = TOPICS.parse_up(topic)
        window = decode_up(payload)
        if up is None or not isinstance(window, Window):
            raise TypeError("not a window")
        session.merge(Watermark(device_id=up.device, boot=window.boot, seq=window.seq))
        session.add(
            TelemetryWindow(
                device_id=up.device,
                slot=window.slot,
                model=window.model,
                version=window.version,
                start=int(window.start.timestamp() * 1000),
                seconds=window.seconds,
                received=0,
                requests=window.requests,
                errors=window.errors,
                latency=window.latency,
                score_sum=window.score_sum,
                score_count=window.score_count,
                cpu_ms=window.cpu_ms,
                rss_mb=window.rss_mb,
                anon_mb=window.anon_mb,
                agent_rss_mb=window.agent_rss_mb,
                temperature_c=window.temperature_c,
            )
        )
        acks.append(ack)
        if len(acks) < commit_every:
            return
        session.commit()
        for each in acks:
            each()
        watch.finished(len(acks))
        acks.clear()

    uplink = Uplink(
        _access(plan, SUBSCRIBER), filters=[TOPICS.up_filter()], handler=handle, persistent=plan["persistent"]
    )
    uplink.start()
    _ready(plan, uplink.wait_subscribed)


def _drain(plan: dict[str, Any]) -> None:
    watch = _Stopwatch(plan["messages"])
    modes: dict[str, Callable[[], None]] = {
        "count_only": lambda: _count_only(plan, watch),
        "end_to_end": lambda: _end_to_end(plan, watch),
        "orm_rows": lambda: _orm(plan, watch, 1),
        "orm_batched": lambda: _orm(plan, watch, min(1000, plan["messages"])),
    }
    modes[plan["mode"]]()
    watch.done.wait(DRAIN_TIMEOUT_S)
    print(json.dumps({"seconds": watch.seconds, "cpu_s": watch.cpu_s}), flush=True)
    os._exit(0)  # the other threads have nothing left to say


if __name__ == "__main__":
    _drain(json.loads(sys.argv[1]))
