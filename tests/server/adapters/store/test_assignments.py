from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from tests.support.fleet_db import MODEL, FleetDb, fleet_db, manifest
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Device, DeviceAssignment, Version
from wavegate_server.adapters.store.assignments import AssignmentDraft
from wavegate_server.adapters.store.devices import remove_model
from wavegate_server.adapters.store.rollouts import find_version
from wavegate_shared.assignment import Probation
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import encode_manifest
from wavegate_shared.wire import Hello, Running


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

    slot = sent.slots[MODEL]
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


def test_no_version_means_keep_what_runs(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        give(db, "locker-00", None)
        (sent,) = db.assignments("locker-00")

    assert {name: slot.release_seq for name, slot in sent.slots.items()} == {MODEL: 1}
    assert sent.removed == {}


def test_no_version_where_nothing_runs_takes_back_what_was_assigned(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        db.version(2)
        db.device("new", version=0)
        give(db, "new")
        give(db, "new", None)
        sent = db.assignments("new")[-1]

    assert sent.slots == {}
    assert {name: removal.seq for name, removal in sent.removed.items()} == {MODEL: 2}


def other_model(db: FleetDb, number: int) -> Version:
    """A published version of a second model."""
    data = encode_manifest(msgspec.structs.replace(manifest(number), model="fashion"))
    with write(db.engine) as session:
        version = Version(
            model="fashion", number=number, state="published", created_at=db.now, manifest=data,
            manifest_sha256="e" * 64, size_bytes=9,
        )  # fmt: skip
        session.add(version)
        session.flush()
        session.expunge(version)
    return version


def give_other(db: FleetDb, device: str, version: Version) -> int:
    with write(db.engine) as session, db.orders.batch(session, db.now) as batch:
        draft = AssignmentDraft(version=version, model="fashion", rollout="r-9", wave=1, reason="beside")
        return batch.give(device, draft)


def test_a_second_model_leaves_the_first_ones_entry_as_it_was(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        give(db, "locker-00", probation=Probation(seconds=7.0))
        give_other(db, "locker-00", other_model(db, 4))
        first, second = db.assignments("locker-00")

    assert second.slots[MODEL] == first.slots[MODEL]
    assert (second.seq, second.slots["fashion"].seq, second.slots[MODEL].seq) == (2, 2, 1)
    assert [second.slots[name].rollout for name in (MODEL, "fashion")] == ["r-1", "r-9"]
    kept = second.slots[MODEL].probation
    assert kept is not None
    assert kept.seconds == 7.0
    assert second.meta_min == {"snapshot": 3, "release/address-match": 2, "release/fashion": 2}


def test_a_model_that_runs_and_nobody_assigned_is_kept(tmp_path: Path) -> None:
    """As after an upgrade, or on a database older than the device."""
    with fleet_db(tmp_path, devices=1) as db:
        give_other(db, "locker-00", other_model(db, 4))
        (sent,) = db.assignments("locker-00")

    assert {name: slot.release_seq for name, slot in sent.slots.items()} == {MODEL: 1, "fashion": 4}


def test_a_model_is_taken_away_and_the_other_stays(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        give(db, "locker-00")
        give_other(db, "locker-00", other_model(db, 4))
        with write(db.engine) as session:
            for _ in range(2):
                remove_model(session, db.orders, "locker-00", "fashion", actor="ana", reason="closed", now=db.now)
        sent = db.assignments("locker-00")

    assert len(sent) == 3, "what is being taken away already is not assigned again"
    assert list(sent[-1].slots) == [MODEL]
    assert {name: removal.seq for name, removal in sent[-1].removed.items()} == {"fashion": 3}


def test_a_model_in_a_rollout_is_not_taken_away(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = db.rollout(2, ["locker-00"])
        with write(db.engine) as session, pytest.raises(UsageError, match=rollout) as refused:
            remove_model(session, db.orders, "locker-00", MODEL, actor="ana", reason="", now=db.now)
    assert refused.value.code == "conflict"


def test_an_agent_of_release_0_1_is_told_by_its_own_label(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        slots = {"main": Running(model=MODEL, version=1)}
        db.take("locker-00", Hello(boot=1, agent_version="0.1.0", slots=slots))
        give(db, "locker-00")
        assert list(db.assignments("locker-00")[0].slots) == ["main"]


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
        return batch.resend(timedelta(seconds=30))[0]


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
