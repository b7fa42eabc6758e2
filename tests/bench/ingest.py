"""The ingest, end to end, against the two things it could be: only counting, and one ORM row at a time.

A backlog of telemetry windows (QoS 1, many devices, their windows interleaved) waits in the broker, so that publishing takes
no CPU while it is drained. In turns, each in a process of its own and with the same TLS and manual acknowledgement:
`count_only` acknowledges and counts, `end_to_end` is the server's `Ingest` (decode, raw rows, roll-ups of every level,
commit with fsync, ack, "stored"), `orm_*` writes one `session.add` and `session.merge` per message and commits each
(`orm_rows`) or every 1000 (`orm_batched`). Then the ingest is killed with SIGKILL twice in mid-drain: every window must stand
in the tables exactly once, and in the roll-ups too.

Without Mosquitto the embedded broker stands in; it keeps no backlog, so the windows are published meanwhile.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench._ingest_drain import DRAIN_TIMEOUT_S, SUBSCRIBER, TOPICS, subscribe
from tests.support.broker import TestAuthority, running_broker, tls_client
from wavegate_server.adapters.broker.mosquitto import find_mosquitto
from wavegate_server.adapters.broker.process import RunningBroker
from wavegate_server.adapters.database.connection import open_engine, write
from wavegate_server.adapters.database.tables import METADATA, Device
from wavegate_shared.histogram import Histogram
from wavegate_shared.topics import shard_of
from wavegate_shared.wire import Window, encode

DEVICES = 200
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
WINDOW_S = 60
REQUESTS_A_WINDOW = 60
PUBLISH_AT_ONCE = 500


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; `options.quick` takes a smaller backlog and one round."""
    kind = "mosquitto" if find_mosquitto() else "embedded"
    quick = bool(getattr(options, "quick", False))
    messages = 4_000 if quick or kind == "embedded" else 20_000
    orm_messages = 400 if quick else 2_000
    rounds = 1 if quick else 3
    with (
        tempfile.TemporaryDirectory() as temporary,
        running_broker(Path(temporary) / "broker", kind, max_queued=1_000_000) as (broker, authority),
    ):
        bench = _Bench(Path(temporary), broker, authority, _backlog(messages))
        drains: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for mode in ("count_only", "end_to_end"):
                drains.setdefault(mode, []).append(bench.drain(mode, messages))
        for mode in ("orm_rows", "orm_batched"):
            drains[mode] = [bench.drain(mode, orm_messages)]
        killed = bench.killed(messages)
    pairs = list(zip(drains["end_to_end"], drains["count_only"], strict=True))
    ratios = [each[0] / base[0] for each, base in pairs]
    end_to_end = max(each[0] for each in drains["end_to_end"])
    count_only = max(each[0] for each in drains["count_only"])
    return {
        "vs_count_only": round(end_to_end / count_only, 3),
        "vs_count_only_median": round(median(ratios), 3),
        "vs_count_only_cpu": round(median(each[1] / base[1] for each, base in pairs), 3),
        "vs_orm_rows": round(end_to_end / drains["orm_rows"][0][0], 1),
        "vs_orm_batched": round(end_to_end / drains["orm_batched"][0][0], 1),
        **killed,
        "messages": messages,
        "end_to_end_per_s": round(end_to_end),
        "count_only_per_s": round(count_only),
        "notes": {
            "broker": kind,
            "rounds": f"{rounds}, in turns; vs_count_only is best against best, which other load disturbs least",
            "devices": DEVICES,
            "vs_count_only_rounds": [round(each, 3) for each in ratios],
            "database": "sqlite, WAL, synchronous=FULL",
            "rollups": "device and fleet at 60, 3600 and 86400 s, in the same transaction",
            "broker_settings": "as generated, but max_queued_messages 1000000 to hold the backlog",
        },
    }


def _device(number: int) -> str:
    return f"bench-{number:04}"


def _backlog(messages: int) -> list[tuple[str, bytes]]:
    """(topic, payload), window by window over all devices."""
    chance = random.Random(5)
    backlog = []
    for number in range(messages):
        device, turn = _device(number % DEVICES), number // DEVICES
        latency = Histogram()
        for _ in range(REQUESTS_A_WINDOW):
            latency.add(chance.lognormvariate(2.0, 0.3))
        window = Window(
            boot=1,
            seq=turn + 1,
            slot="default",
            model="address-match",
            version=3,
            start=START + timedelta(seconds=WINDOW_S * turn),
            seconds=float(WINDOW_S),
            requests=REQUESTS_A_WINDOW,
            errors=0,
            latency=latency.encode(),
            score_sum=11.0,
            score_count=12,
            cpu_ms=431.5,
            rss_mb=88.25,
            anon_mb=12.5,
            agent_rss_mb=31.0,
            temperature_c=54.0,
        )
        backlog.append((TOPICS.up(shard_of(device), device, "tm"), encode(window)))
    return backlog


class _Bench:
    """One broker, one backlog, and the processes that drain it."""

    def __init__(
        self, directory: Path, broker: RunningBroker, authority: TestAuthority, backlog: list[tuple[str, bytes]]
    ) -> None:
        self._dir = directory
        self._broker = broker
        self._authority = authority
        self._backlog = backlog
        self._count = 0

    def drain(self, mode: str, messages: int) -> tuple[float, float]:
        """One drain: messages per second, and per second of CPU time."""
        database = self._database()
        with self._waiting(messages) as feed, self._child(mode, messages, database) as child:
            feed()
            answer = json.loads(_line(child))
        if not answer["seconds"]:
            raise RuntimeError(f"{mode} did not finish: {answer}")
        return messages / answer["seconds"], messages / answer["cpu_s"]

    def killed(self, messages: int) -> dict[str, float]:
        """Windows lost, doubled and miscounted after two kill -9 in mid-drain."""
        database = self._database()
        with self._waiting(messages) as feed:
            for share in (0.25, 0.6):
                with self._child("end_to_end", messages, database) as child:
                    feed()
                    _until(lambda share=share: _rows(database) >= messages * share)  # type: ignore[misc]  # bound early
                    os.kill(child.pid, signal.SIGKILL)
            after_kills = _rows(database)
            with self._child("end_to_end", messages - after_kills, database) as child:
                feed()
                _line(child)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            distinct, rows = connection.execute(
                "SELECT COUNT(DISTINCT device_id || ':' || start), COUNT(*) FROM telemetry_window"
            ).fetchone()
            sums = connection.execute("SELECT level, SUM(requests) FROM fleet_rollup GROUP BY level").fetchall()
            sums += connection.execute("SELECT level, SUM(requests) FROM device_rollup GROUP BY level").fetchall()
        wrong = sum(abs(total - messages * REQUESTS_A_WINDOW) for _, total in sums)
        return {
            "lost": messages - distinct,
            "doubled": rows - distinct,
            "rollup_requests_wrong": wrong if len(sums) == 6 else -1,
            "rows_at_kills": after_kills,
        }

    def _database(self) -> Path:
        self._count += 1
        path = self._dir / f"drain-{self._count}.db"
        engine = open_engine(f"sqlite:///{path}")
        METADATA.create_all(engine)
        with write(engine) as session:
            for number in range(DEVICES):
                session.add(
                    Device(
                        id=_device(number),
                        hardware_class=f"class-{number % 2}",
                        site=f"site-{number % 4}",
                        shard=0,
                        state="active",
                        created_at=START,
                    )
                )
        engine.dispose()
        return path

    @contextlib.contextmanager
    def _waiting(self, messages: int) -> Iterator[Callable[[], None]]:
        """The backlog, waiting in the broker; yields what to call once a subscriber is there."""
        backlog = self._backlog[:messages]
        if self._broker.keeps_sessions:
            self._session(subscribed=True)
            self._publish(backlog)
            yield lambda: None
            self._session(subscribed=False)
            return
        feeders: list[threading.Thread] = []

        def feed() -> None:
            feeders.append(threading.Thread(target=self._publish, args=(backlog,)))
            feeders[-1].start()

        yield feed
        for feeder in feeders:
            feeder.join()

    def _session(self, *, subscribed: bool) -> None:
        """Make the subscriber's persistent session, or end it."""
        client = self._client(SUBSCRIBER, clean=not subscribed)
        done = threading.Event()
        client.on_subscribe = lambda *_: done.set()
        client.on_connect = subscribe
        client.connect(self._broker.host, self._broker.port)
        client.loop_start()
        if not done.wait(20):
            raise RuntimeError("the broker does not answer")
        client.disconnect()
        client.loop_stop()

    def _publish(self, backlog: list[tuple[str, bytes]]) -> None:
        """At QoS 1 and by hand: a client library would take longer than the drain."""
        files = self._authority.service("ingest-1")
        with (
            socket.create_connection((self._broker.host, self._broker.port), timeout=DRAIN_TIMEOUT_S) as plain,
            tls_client(files, files.ca).wrap_socket(plain, server_hostname=self._broker.host) as tls,
        ):
            tls.sendall(_packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + _text("ingest-1")))
            if tls.recv(4) != b"\x20\x02\x00\x00":
                raise RuntimeError("the broker refuses the publisher")
            acked_bytes = 0
            for start in range(0, len(backlog), PUBLISH_AT_ONCE):
                part = backlog[start : start + PUBLISH_AT_ONCE]
                tls.sendall(
                    b"".join(
                        _packet(0x32, _text(topic) + struct.pack("!H", 1 + (start + at) % 65_535) + payload)
                        for at, (topic, payload) in enumerate(part)
                    )
                )
                while acked_bytes < 4 * (start + len(part)):
                    acks = tls.recv(1 << 16)
                    if not acks:
                        raise RuntimeError("the broker ended the publisher's connection")
                    acked_bytes += len(acks)

    def _client(self, identity: str, *, clean: bool) -> paho.Client:
        files = self._authority.service(identity)
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=identity, clean_session=clean)
        client.tls_set_context(tls_client(files, files.ca))
        return client

    @contextlib.contextmanager
    def _child(self, mode: str, messages: int, database: Path) -> Iterator[subprocess.Popen[bytes]]:
        plan = {
            "mode": mode,
            "messages": messages,
            "database": str(database),
            "host": self._broker.host,
            "port": self._broker.port,
            "persistent": self._broker.keeps_sessions,
            "identities": str(self._authority.service(SUBSCRIBER).ca.parent),
        }
        command = [sys.executable, "-m", "tests.bench._ingest_drain", json.dumps(plan)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            if child.stdout is None or child.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{mode} did not start")
            yield child
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def _packet(kind: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, byte = left >> 7, left & 0x7F
        length.append(byte | 0x80 if left else byte)
        if not left:
            return bytes((kind,)) + bytes(length) + body


def _line(child: subprocess.Popen[bytes]) -> bytes:
    return child.stdout.readline() if child.stdout is not None else b""


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the drain does not progress")
        pause.wait(0.005)


def _rows(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM telemetry_window").fetchone()[0])
