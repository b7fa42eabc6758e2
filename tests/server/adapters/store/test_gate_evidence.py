from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import col, delete

from tests.support.fleet_db import MODEL, START, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import DeviceRollup, RolloutDevice, RolloutWave, TelemetryWindow
from wavegate_server.adapters.store.gate_evidence import EvidenceStore
from wavegate_server.adapters.store.rollout_transitions import write_transition
from wavegate_server.adapters.store.rollout_view import load_view
from wavegate_server.core.gate.evidence import MetricEvidence, Telemetry
from wavegate_server.core.rollout.step import step
from wavegate_shared.histogram import Histogram

NAMES = ["locker-00", "locker-01", "locker-02"]
BLOCKS = 10
SWAP = 12.5
"""Seconds after START; the wave starts at 10."""


def history(db: FleetDb, *, block_s: float = 1.0) -> tuple[str, str]:
    """A wave that started at START + 10 s with one canary, swapped at 12.5 s; gives rollout and canary."""
    db.now = START + timedelta(seconds=10)
    rollout = db.rollout(2, NAMES, waves=[{"count": 1}], block_s=block_s, baseline_blocks=BLOCKS, lag_s=0.5)
    with write(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
        write_transition(session, view, step(view, None, db.now), db.orders, actor="engine", now=db.now)
    with write(db.engine) as session:
        canary = view.members(0)[0].device
        session.get_one(RolloutDevice, (rollout, canary)).swapped_at = START + timedelta(seconds=SWAP)
    return rollout, canary


def look(db: FleetDb, rollout: str, seconds: float, store: EvidenceStore | None = None) -> Telemetry:
    with read(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
        found = (store or EvidenceStore()).telemetry(session, view, START + timedelta(seconds=seconds))
    assert found is not None
    return found


def metric(telemetry: Telemetry, name: str) -> MetricEvidence:
    return next(each for each in telemetry.metrics if each.spec.name == name)


def serve(db: FleetDb, canary: str) -> None:
    """20 s of traffic: everybody on version 1, the canary on 2 from its swap on, and worse."""
    for name in NAMES:
        for second in range(20):
            if name == canary and second > SWAP:
                db.window(name, 2, right=12, slow=25, at=second)
            elif name != canary or second < SWAP - 1:
                db.window(name, 1, right=19 if second % 2 else 20, at=second)


def test_blocks_before_and_after_are_told_apart(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout, canary = history(db)
        serve(db, canary)
        found = look(db, rollout, 18.6)

    accuracy = metric(found, "accuracy")
    assert len(accuracy.baseline) == BLOCKS
    assert len(accuracy.blocks) == 5  # 13, 14, 15, 16, 17: block 18 is not complete, 12 had no traffic of version 2
    assert accuracy.controls == 2
    assert accuracy.blocks == pytest.approx([0.35, 0.4, 0.35, 0.4, 0.35], abs=0.06)
    (shift,) = accuracy.shifts
    assert shift.device == canary
    assert (shift.before, shift.after) == pytest.approx((0.975, 0.6))


def test_p99_is_judged_against_the_devices_own_past(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout, canary = history(db)
        serve(db, canary)
        p99 = metric(look(db, rollout, 18.6), "p99")

    assert p99.shifts[0].after == pytest.approx(0.5)
    assert p99.blocks == pytest.approx([0.5] * 5)


def test_a_block_counts_once_it_is_complete(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout, canary = history(db)
        serve(db, canary)
        before = len(metric(look(db, rollout, 14.4), "accuracy").blocks)
        after = len(metric(look(db, rollout, 14.6), "accuracy").blocks)

    assert (before, after) == (0, 1)


def test_what_another_version_served_is_no_evidence(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout, canary = history(db)
        serve(db, canary)
        db.window(canary, 7, right=0, at=15)
        db.window(canary, 2, right=0, at=5)

        assert look(db, rollout, 18.6) == look(db, rollout, 18.6)
        assert metric(look(db, rollout, 18.6), "accuracy").shifts[0].after == pytest.approx(0.6)


def test_each_device_counts_with_its_own_previous_version(tmp_path: Path) -> None:
    """One control ran version 7 all along; what it served with version 1 was somebody's test and is no baseline."""
    with fleet_db(tmp_path, devices=3) as db:
        rollout, canary = history(db)
        serve(db, canary)
        control = next(name for name in NAMES if name != canary)
        with write(db.engine) as session:
            session.get_one(RolloutDevice, (rollout, control)).previous_version = 7
        for second in range(20):
            db.window(control, 7, right=10, at=second)

        accuracy = metric(look(db, rollout, 18.6), "accuracy")

    assert accuracy.controls == 2
    assert accuracy.blocks == pytest.approx([0.35, 0.4, 0.35, 0.4, 0.35], abs=0.06)
    assert max(abs(value) for value in accuracy.baseline) < 0.04


def test_without_traffic_there_is_no_evidence(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout, _ = history(db)
        found = look(db, rollout, 18.6)

    assert found.updated == 1
    assert not any(each.measured for each in found.metrics)


def test_the_time_before_the_wave_is_read_once(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout, canary = history(db)
        serve(db, canary)
        store = EvidenceStore()
        first = look(db, rollout, 18.6, store)
        with write(db.engine) as session:
            session.exec(delete(TelemetryWindow).where(col(TelemetryWindow.start) < int(START.timestamp() + 10) * 1000))

        assert look(db, rollout, 18.6, store) == first
        store.forget([])
        assert look(db, rollout, 18.6, store) != first


def test_a_damaged_histogram_does_not_stop_the_gate(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout, canary = history(db)
        serve(db, canary)
        with write(db.engine) as session:
            row = session.get_one(TelemetryWindow, 1)
            row.latency = b"\xff\xff"

        assert metric(look(db, rollout, 18.6), "accuracy").shifts


def test_long_blocks_are_read_from_the_minute_roll_ups(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        db.now = START + timedelta(hours=2)
        rollout = db.rollout(2, NAMES, waves=[{"count": 1}], block_s=600, baseline_blocks=BLOCKS)
        with write(db.engine) as session:
            view = load_view(session, rollout, since=db.now)
            write_transition(session, view, step(view, None, db.now), db.orders, actor="engine", now=db.now)
            canary = view.members(0)[0].device
            session.get_one(RolloutDevice, (rollout, canary)).swapped_at = db.now
            for name in NAMES:
                for minute in range(20, 180, 5):
                    version = 2 if name == canary and minute >= 120 else 1
                    session.add(_rollup(name, version, minute))

        accuracy = metric(look(db, rollout, 3 * 3600), "accuracy")

    assert len(accuracy.baseline) == BLOCKS
    assert len(accuracy.blocks) == 4  # the wave's own block is left out, and the last one may still get late telemetry
    assert accuracy.shifts[0].after == pytest.approx(0.5)


def _rollup(name: str, version: int, minute: int) -> DeviceRollup:
    histogram = Histogram()
    histogram.add(10.0, 100)
    return DeviceRollup(
        device_id=name,
        level=60,
        bucket=int(START.timestamp()) + 60 * minute,
        slot=MODEL,
        version=version,
        model=MODEL,
        requests=100,
        errors=0,
        latency=histogram.encode(),
        score_sum=20.0 if version == 2 else 38.0,
        score_count=40,
    )


def test_before_the_wave_there_is_nothing_to_see(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=3) as db:
        rollout = db.rollout(2, NAMES)
        with read(db.engine) as session:
            assert session.get_one(RolloutWave, (rollout, 0)).started_at is None
            view = load_view(session, rollout, since=db.now)
            assert EvidenceStore().telemetry(session, view, db.now) is None
