"""The engine on a real database, with devices that answer and seconds instead of hours: the life of four versions."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from tests.support.fleet_db import START, FleetDb, fleet_db, second_of_traffic
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import GateDecision, Outbox, Rollout, RolloutWave, Version
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.rollout_actions import act_on_rollout
from wavegate_server.config import Settings
from wavegate_server.core.gate.decision import replay
from wavegate_server.services.engine import Engine
from wavegate_shared.errors import TransferError
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import Assign, decode_down

NAMES = [f"locker-{number:02}" for number in range(8)]
POLICY: dict[str, Any] = {
    "waves": [{"name": "canary", "count": 1}],
    "block_s": 1.0,
    "baseline_blocks": 10,
    "lag_s": 0.5,
    "soak_s": 10.0,
    "grace_s": 2.0,
    "margins": {"accuracy": 0.05, "p99": 0.2, "errors": 0.05},
    "wide_factor": 1.0,
}
"""As the demo has it."""


@dataclass
class Wire:
    """A broker that keeps what it is given, unless it is down."""

    down: bool = False
    sent: list[tuple[str, bytes, int]] = field(default_factory=list)
    heard: threading.Event = field(default_factory=threading.Event)

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        if self.down:
            raise TransferError("not_connected")
        self.sent.append((topic, payload, qos))
        self.heard.set()


@dataclass
class Scene:
    """Engine, devices and traffic under one clock."""

    db: FleetDb
    wire: Wire
    engine: Engine
    running: dict[str, int]
    right: dict[int, int] = field(default_factory=lambda: {1: 19, 2: 19, 3: 19, 4: 12})
    slow: dict[int, int] = field(default_factory=dict)
    fails: dict[int, str] = field(default_factory=dict)
    fails_on: dict[str, str] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    idle: bool = False

    def second(self, *, answer: bool = True) -> None:
        """One second of the fleet: traffic, engine, devices."""
        at = (self.db.now - START).total_seconds()
        wobble = int(at) % 2
        self.db.store(
            [
                second_of_traffic(
                    name, version, right=self.right[version] + wobble, slow=self.slow.get(version, 0), at=at
                )
                for name, version in self.running.items()
                if version and not self.idle
            ]
        )
        self.db.later(1)
        self.engine.tick()
        self.engine.send()
        if answer:
            self._devices_answer()

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.second()

    def until(self, condition: Callable[[], bool], *, limit: int = 120) -> None:
        """Seconds pass until it is so."""
        for _ in range(limit):
            if condition():
                return
            self.second()
        raise AssertionError("it did not come to that")

    def _devices_answer(self) -> None:
        for name in self.running:
            assignment = self.db.assignments(name)[-1] if self.db.assignments(name) else None
            if assignment is None or assignment.seq <= self.done.get(name, 0):
                continue
            self.done[name] = assignment.seq
            slot = assignment.slots.get("address-match")
            if slot is None:  # a first version is taken back: nothing serves
                self.running[name] = 0
                continue
            version = slot.release_seq
            about: dict[str, Any] = {"seq": assignment.seq, "version": version, "rollout": assignment.rollout}
            self.db.says(name, DeviceState.OFFERED, seq=assignment.seq, version=version)
            code = self.fails.get(version) or self.fails_on.get(name)
            if code is not None:
                self.db.report(name, Outcome.REFUSED, active=self.running[name], code=code, **about)
            else:
                self.running[name] = version
                self.db.says(name, DeviceState.PROBATION, seq=assignment.seq, version=version)
                self.db.report(name, Outcome.PROVEN, active=version, **about)


def scene(db: FleetDb, directory: Path, **changes: Any) -> Scene:
    for version in (3, 4):
        db.version(version)
    wire = Wire()
    settings = Settings(data_dir=directory, tick_s=0.01)
    engine = Engine(db.engine, db.director, db.metadata, wire, settings, now=lambda: db.now, **changes)
    return Scene(db, wire, engine, dict.fromkeys(NAMES, 1))


def decisions(db: FleetDb, rollout: str) -> list[GateDecision]:
    with read(db.engine) as session:
        query = select(GateDecision).where(GateDecision.rollout_id == rollout).order_by(col(GateDecision.id))
        return list(session.exec(query))


def reason(db: FleetDb, rollout: str) -> str:
    with read(db.engine) as session:
        return session.get_one(Rollout, rollout).reason


def test_a_good_version_goes_through_its_gate_to_everybody(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.seconds(11)
        rollout = db.rollout(2, NAMES, **POLICY)

        world.until(lambda: db.state(rollout) == "completed")

        found = decisions(db, rollout)
        with read(db.engine) as session:
            waves = session.exec(select(RolloutWave).where(RolloutWave.rollout_id == rollout)).all()
            assert audit.verify_chain(session) is None

    assert set(world.running.values()) == {2}
    assert [each.verdict for each in found if each.final] == ["promote", "promote"]
    assert [wave.state for wave in waves] == ["passed", "passed"]
    assert all(wave.finished_at >= wave.soak_started_at + timedelta(seconds=10) for wave in waves)  # type: ignore[operator]
    assert reason(db, rollout) == "proven on 8 of 8 devices"


def test_a_version_that_fails_its_golden_set_touches_one_device(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.fails = {3: "golden_failed"}
        world.seconds(11)
        rollout = db.rollout(3, NAMES, **POLICY)

        world.until(lambda: db.state(rollout) == "rolled_back")

        touched = [name for name in NAMES if db.assignments(name)]
        with read(db.engine) as session:
            denied = session.exec(select(Version).where(Version.number == 3)).one().denied

    assert len(touched) == 1
    assert denied
    assert reason(db, rollout).startswith(f"{touched[0]} refused version 3 (golden_failed): rolled back")
    assert set(world.running.values()) == {1}


def test_a_version_that_is_wrong_on_live_traffic_is_taken_back(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.slow = {4: 30}
        world.seconds(11)
        rollout = db.rollout(4, NAMES, **POLICY)

        world.until(lambda: db.state(rollout) == "rolled_back")

        touched = [name for name in NAMES if db.assignments(name)]
        row = db.row(rollout, touched[0])
        final = [each for each in decisions(db, rollout) if each.final]
        back = db.assignments(touched[0])[-1]

    assert len(touched) == 1
    assert set(world.running.values()) == {1}
    assert (row.state, back.slots["address-match"].release_seq, back.slots["address-match"].allow_older) == (
        "rolled_back",
        1,
        True,
    )
    assert final[-1].verdict == "rollback"
    assert final[-1].sentence.startswith(f"{touched[0]}: live accuracy fell 97.5 % -> 62.5 % (margin 5.0 pt)")


def test_a_rollback_takes_back_the_version_also_where_later_canaries_failed(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.seconds(11)
        first = db.rollout(2, NAMES, **POLICY)
        world.until(lambda: db.state(first) == "completed")
        world.fails, world.slow = {3: "golden_failed"}, {4: 30}
        refused = db.rollout(3, NAMES[:4], **POLICY)
        world.until(lambda: db.state(refused) == "rolled_back")
        world.seconds(11)
        bad = db.rollout(4, NAMES[4:], **POLICY)
        world.until(lambda: db.state(bad) == "rolled_back")
        assert set(world.running.values()) == {2}

        with write(db.engine) as session:
            act_on_rollout(session, first, "rollback", actor="ana", orders=db.orders, now=db.now)
        world.until(lambda: db.state(first) == "rolled_back")

        assert reason(db, first) == "rolled back by ana; 8 back on their previous version"
    assert set(world.running.values()) == {1}


def test_every_stored_decision_replays_bit_for_bit(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.seconds(11)
        rollout = db.rollout(4, NAMES, **POLICY)
        world.until(lambda: db.state(rollout) == "rolled_back")

        for each in decisions(db, rollout):
            again = replay(each.evidence)
            assert (again.verdict.value, again.sentence) == (each.verdict, each.sentence)


def test_a_bad_version_is_not_offered_a_second_time(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.fails = {3: "golden_failed"}
        rollout = db.rollout(3, NAMES, **POLICY)
        world.until(lambda: db.state(rollout) == "rolled_back")

        with pytest.raises(Exception, match="was rolled back before"):
            db.rollout(3, NAMES, **POLICY)


def test_nothing_is_decided_in_memory(tmp_path: Path) -> None:
    """A new engine at every second, as if the old one were killed: the same end."""
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.seconds(11)
        rollout = db.rollout(2, NAMES, **{**POLICY, "grace_s": 0.0})
        settings = Settings(data_dir=tmp_path, tick_s=0.01)
        for _ in range(60):
            world.engine = Engine(db.engine, db.director, db.metadata, world.wire, settings, now=lambda: db.now)
            world.second()
            if db.state(rollout) == "completed":
                break

        orders = [len({a.seq for a in db.assignments(name)}) for name in NAMES]
        assert db.state(rollout) == "completed"

    assert orders == [1] * 8


def test_the_outbox_is_sent_once_and_in_order(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        db.rollout(2, NAMES, waves=[{"percent": 100}])
        world.engine.tick()

        first, second = world.engine.send(), world.engine.send()

    assert (first, second) == (8, 0)
    assert [topic for topic, _, _ in world.wire.sent] == [row.topic for row in db.outbox()]
    assert {qos for _, _, qos in world.wire.sent} == {1}
    assert isinstance(decode_down(world.wire.sent[0][1]), Assign)


def test_what_cannot_be_sent_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        world = scene(db, tmp_path)
        db.rollout(2, NAMES[:2], waves=[{"percent": 100}])
        world.engine.tick()
        world.wire.down = True
        with caplog.at_level(logging.WARNING):
            failed = world.engine.send()
        world.wire.down = False

        assert (failed, world.engine.send()) == (0, 2)
    assert "engine.send_failed waiting=2" in caplog.text


def test_one_broken_rollout_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        world = scene(db, tmp_path)
        broken, sound = db.rollout(2, [NAMES[0]]), db.rollout(2, [NAMES[1]])
        with write(db.engine) as session:
            session.get_one(Rollout, broken).policy = {"block_s": "nonsense"}

        world.engine.tick()

        assert (db.state(broken), db.state(sound)) == ("scheduled", "running")
    assert world.engine.errors == 1
    assert "rollout.step_failed" in caplog.text


def test_the_log_tells_each_change_with_rollout_and_version(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        world = scene(db, tmp_path)
        rollout = db.rollout(2, [NAMES[0]])
        with caplog.at_level(logging.INFO, logger="wavegate_server.services.engine"):
            world.engine.tick()
            world.engine.tick()

    lines = [record.getMessage() for record in caplog.records]
    assert next(line for line in lines if "rollout" in line).startswith(f"rollout.started rollout={rollout} version=2")
    assert len([line for line in lines if "rollout.started" in line]) == 1


def test_hooks_run_with_the_time_and_metadata_is_kept_fresh(tmp_path: Path) -> None:
    seen: list[datetime] = []
    with fleet_db(tmp_path) as db:
        world = scene(db, tmp_path, hooks=(seen.append,))
        world.engine.tick()
        world.engine.tick()

        assert seen == [START]
        assert db.metadata.resigned == 1


def test_a_gate_keeps_only_its_newest_hold(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        world.seconds(11)
        rollout = db.rollout(2, NAMES, **POLICY)
        world.seconds(7)

        assert [(each.verdict, each.final) for each in decisions(db, rollout)] == [("hold", False)]


def test_started_it_works_by_itself(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        world = scene(db, tmp_path)
        db.rollout(2, [NAMES[0]])
        world.engine.start()
        try:
            assert world.wire.heard.wait(10)
        finally:
            world.engine.stop()
            world.engine.stop()

        with read(db.engine) as session:
            assert session.exec(select(Outbox.sent_at)).all() == [db.now]


def test_a_downgrade_goes_through_waves_and_gate_like_any_other(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world = scene(db, tmp_path)
        for name in NAMES:
            db.runs(name, 3)
        world.running = dict.fromkeys(NAMES, 3)
        world.seconds(11)
        rollout = db.rollout(2, NAMES, downgrade="v3 is slow at night", **POLICY)
        world.until(lambda: db.state(rollout) == "completed")
        allowed = {db.assignments(name)[-1].slots["address-match"].allow_older for name in NAMES}
    assert set(world.running.values()) == {2}
    assert allowed == {True}
