from datetime import timedelta
from pathlib import Path

from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Device, DeviceAssignment
from wavegate_server.adapters.store.assignments import AssignmentDraft
from wavegate_server.adapters.store.rollouts import find_version
from wavegate_shared.assignment import Probation


def give(db: FleetDb, device: str, version: int | None = 2, **changes: object) -> int:
    with write(db.engine) as session, db.orders.batch(session, db.now) as batch:
        found = find_version(session, MODEL, version) if version else None
        values: dict[str, object] = {"rollout": "r-1", "wave": 0, "reason": "because"}
        return batch.give(device, AssignmentDraft(version=found, model=MODEL, **{**values, **changes}))  # type: ignore[arg-type]


def stored(db: FleetDb, device: str) -> DeviceAssignment:
    with read(db.engine) as session:
        return session.get_one(DeviceAssignment, device)


def test_an_order_is_signed_stored_and_queued(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        give(db, "locker-00", probation=Probation(seconds=7.0))
        (sent,) = db.assignments("locker-00")

    slot = sent.slots["main"]
    assert (sent.device, sent.seq, sent.rollout, sent.probation.seconds) == ("locker-00", 1, "r-1", 7.0)
    assert (slot.model, slot.target, slot.release_seq, slot.allow_older) == (MODEL, "address-match/2.json", 2, False)
    assert sent.meta_min == {"snapshot": 3, "release/address-match": 2}


def test_each_order_has_a_higher_number(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        assert [give(db, "locker-00"), give(db, "locker-00"), give(db, "locker-00", 1)] == [1, 2, 3]


def test_the_number_is_above_what_the_device_says_it_accepted(tmp_path: Path) -> None:
    """A database restored from a backup must not give numbers that devices take for replays."""
    with fleet_db(tmp_path, devices=1) as db:
        with write(db.engine) as session:
            session.get_one(Device, "locker-00").assignment_seq = 41
        assert give(db, "locker-00") == 42


def test_no_version_means_keep_what_is_active(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        give(db, "locker-00", None)

        assert db.assignments("locker-00")[0].slots == {}


def test_an_order_near_its_expiry_is_signed_anew_with_the_same_number(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        give(db, "locker-00")
        before = stored(db, "locker-00")
        db.now += timedelta(days=8)
        with write(db.engine) as session, db.orders.batch(session, db.now) as batch:
            first, second = batch.renew(), batch.renew()
        after = stored(db, "locker-00")

    assert (first, second) == (1, 0)
    assert after.seq == before.seq
    assert after.expires_at == db.now + timedelta(days=14)
    assert after.envelope != before.envelope


def resend(db: FleetDb) -> int:
    with write(db.engine) as session, db.orders.batch(session, db.now) as batch:
        return batch.resend(timedelta(seconds=30))


def test_what_is_not_acknowledged_is_sent_again_at_intervals(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        give(db, "locker-00")
        early = resend(db)
        db.later(31)
        due, at_once = resend(db), resend(db)
        db.later(31)
        later = resend(db)

    assert (early, due, at_once, later) == (0, 1, 0, 1)


def test_acknowledged_and_absent_devices_are_left_alone(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        give(db, "locker-00")
        give(db, "locker-01")
        with write(db.engine) as session:
            session.get_one(DeviceAssignment, "locker-00").acknowledged = True
            session.get_one(Device, "locker-01").last_seen = db.now - timedelta(hours=2)
        db.later(60)

        assert resend(db) == 0
