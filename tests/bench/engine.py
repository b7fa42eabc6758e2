"""What the engine costs on large fleets: an idle look, a wave and a rollback of everybody, and what ingest notices of it.

A real SQLite file, the real director's signatures, no broker: the outbox is where this bench ends. `idle_look_ms_*` is the mean of the ticks of
five minutes of a soak, one a second, with all that runs in a tick; `orders_per_s` a wave of all devices, from the decision to the
last order in the outbox; `write_lock_ms_max` the longest that a transaction of the engine was open for writing, commit included;
`ingest_p99_ratio` the time that the ingest takes to store 50 windows, during such a wave / with an idle engine.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, update
from sqlmodel import col

from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.bulk import insert_all
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import Device, DeviceSlot, Rollout, RolloutDevice, TelemetryWindow
from wavegate_server.adapters.store.rollout_actions import act_on_rollout, prepare_action
from wavegate_server.config import Settings
from wavegate_server.services.engine import Engine
from wavegate_shared.histogram import Histogram
from wavegate_shared.topics import shard_of

FEW, MANY = 1_000, 20_000
TICKS = 300
WINDOWS, EVERY_S = 50, 0.02
POLICY: dict[str, Any] = {"waves": [{"percent": 100}], "soak_s": 86_400.0, "watch_s": 0.0}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Figures as in the module's text; `options.quick` takes 500 and 2,000 devices."""
    few, many = (500, 2_000) if options.quick else (FEW, MANY)
    small, large = _life(few), _life(many)
    return {
        f"idle_look_ms_{many}": large["idle_ms"],
        f"idle_look_ms_{few}": small["idle_ms"],
        "idle_growth": round(large["idle_ms"] / small["idle_ms"], 2),
        "idle_ms_max": large["idle_max_ms"],
        "orders_per_s": large["orders_per_s"],
        "write_lock_ms_max": large["lock_ms"],
        "ingest_p99_ratio": large["ingest_p99_ratio"],
        "ingest_p99_idle_ms": large["ingest_idle_ms"],
        "create_s": large["create_s"],
        "rollback_s": large["rollback_s"],
    }


def _life(devices: int) -> dict[str, float]:
    """One fleet: idle soak, then a rollback of everybody, then a wave beside ingest."""
    with tempfile.TemporaryDirectory(prefix="wg-") as scratch, fleet_db(Path(scratch)) as db:
        event.listen(db.engine, "connect", _sync)
        db.engine.dispose()
        names = _fleet(db, devices)
        engine = Engine(
            db.engine, db.director, db.metadata, _Nothing(), Settings(data_dir=Path(scratch)), now=lambda: db.now
        )
        began = time.perf_counter()
        rollout = db.rollout(2, names, **POLICY)
        create_s = time.perf_counter() - began
        with _locks(db) as locked:
            began = time.perf_counter()
            while engine.tick():
                pass
            wave_s = time.perf_counter() - began
        _prove(db, rollout)
        idle = _idle(db, engine)
        with _locks(db) as back:
            began = time.perf_counter()
            _roll_back(db, rollout)
            while engine.tick() or _is_undecided(db, rollout):
                pass
            rollback_s = time.perf_counter() - began
        quiet = _ingest(db, names, lambda: time.sleep(4))
        again = db.rollout(3, names, **POLICY)
        busy = _ingest(db, names, lambda: _until_quiet(engine))
        assert db.state(again) == "running"
        assert len(db.outbox()) >= 3 * devices
        return {
            "idle_ms": round(statistics.mean(idle), 2),
            "idle_max_ms": round(max(idle), 1),
            "orders_per_s": round(devices / wave_s),
            "lock_ms": round(max(*locked, *back), 1),
            "create_s": round(create_s, 2),
            "rollback_s": round(rollback_s, 2),
            "ingest_idle_ms": round(_p99(quiet), 2),
            "ingest_p99_ratio": round(_p99(busy) / _p99(quiet), 2),
        }


def _sync(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=FULL")  # as in production, which `fleet_db` is not


class _Nothing:
    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        """The outbox is where this bench ends."""


def _fleet(db: FleetDb, devices: int) -> list[str]:
    for number in (1, 2, 3):
        db.version(number)
    names = [f"locker-{number:05}" for number in range(devices)]
    with write(db.engine) as session:
        every = [
            Device(
                id=name, hardware_class=f"class-{at % 4}", site=f"site-{at % 50}", shard=shard_of(name), state="active",
                created_at=db.now, last_seen=db.now,
            ).model_dump()
            for at, name in enumerate(names)
        ]  # fmt: skip
        insert_all(session, Device, every)
        slots = [DeviceSlot(device_id=name, model=MODEL, version=1, state="idle").model_dump() for name in names]
        insert_all(session, DeviceSlot, slots)
    return names


def _prove(db: FleetDb, rollout: str) -> None:
    """All devices report that they proved it, as ingest would have written it."""
    at = {"accepted_at": db.now, "swapped_at": db.now, "finished_at": db.now}
    with write(db.engine) as session:
        rows = update(RolloutDevice).where(col(RolloutDevice.rollout_id) == rollout)
        session.execute(rows.values(state="proven", live_requests=100, **at))
        session.execute(update(DeviceSlot).values(version=2))
        session.execute(update(Rollout).values(touched=Rollout.touched + 1))


def _idle(db: FleetDb, engine: Engine) -> list[float]:
    """Milliseconds of each tick of a quiet soak; devices are heard of every half minute."""
    for _ in range(3):
        db.later(1)
        engine.tick()
    times = []
    for second in range(TICKS):
        db.later(1)
        if second % 30 == 0:
            with write(db.engine) as session:
                session.execute(update(Device).values(last_seen=db.now))
        began = time.perf_counter()
        engine.tick()
        times.append((time.perf_counter() - began) * 1000)
    return times


def _roll_back(db: FleetDb, rollout: str) -> None:
    about: Any = {"actor": "ana", "orders": db.orders, "now": db.now}
    prepared = prepare_action(db.engine, rollout, "rollback", **about)
    with write(db.engine) as session:
        act_on_rollout(session, rollout, "rollback", view=prepared.view, **about)


def _is_undecided(db: FleetDb, rollout: str) -> bool:
    with db.engine.connect() as connection:
        left = connection.exec_driver_sql(
            "SELECT count(*) FROM rollout_device WHERE rollout_id = ? AND rollback_seq = 0", (rollout,)
        )
        return bool(left.scalar_one())


def _until_quiet(engine: Engine) -> None:
    while engine.tick():
        pass


def _ingest(db: FleetDb, names: list[str], work: Callable[[], None]) -> list[float]:
    """Milliseconds that each batch of telemetry took while `work` ran in this thread."""
    done = threading.Event()
    times: list[float] = []

    def store() -> None:
        at = 0
        while not done.is_set():
            began = time.perf_counter()
            with write(db.engine) as session:
                insert_all(
                    session, TelemetryWindow, [_window(names[(at + n) % len(names)], at) for n in range(WINDOWS)]
                )
            times.append((time.perf_counter() - began) * 1000)
            at += WINDOWS
            time.sleep(EVERY_S)

    thread = threading.Thread(target=store)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return times


_EMPTY = Histogram().encode()


def _window(name: str, at: int) -> dict[str, Any]:
    return {
        "device_id": name, "slot": MODEL, "model": MODEL, "version": 1, "start": at, "seconds": 1.0, "received": at,
        "requests": 1, "errors": 0, "latency": _EMPTY, "score_sum": 0.0, "score_count": 0,
    }  # fmt: skip


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


@contextmanager
def _locks(db: FleetDb) -> Iterator[list[float]]:
    """Milliseconds that each write transaction of this thread was open, from its lock to the end of its commit."""
    dialect: Any = db.engine.dialect
    commit = dialect.do_commit
    began: dict[str, float] = {}
    times = [0.0]

    def begin(connection: Any) -> None:
        if connection.get_execution_options().get("wavegate_write", False):
            began["at"] = time.perf_counter()

    def do_commit(connection: Any) -> None:
        commit(connection)
        if "at" in began:
            times.append((time.perf_counter() - began.pop("at")) * 1000)

    event.listen(db.engine, "begin", begin)
    dialect.do_commit = do_commit
    try:
        yield times
    finally:
        dialect.do_commit = commit
        event.remove(db.engine, "begin", begin)
