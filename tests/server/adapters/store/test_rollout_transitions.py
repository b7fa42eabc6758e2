from pathlib import Path

import pytest
from sqlmodel import select

from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import DeviceAssignment, Model, Outbox, Rollout, RolloutDevice, Version
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.rollout_transitions import write_transition
from wavegate_server.adapters.store.rollout_view import load_view
from wavegate_server.core.rollout.plan import Transition
from wavegate_server.core.rollout.step import roll_back, step
from wavegate_server.core.sentences import Sentence
from wavegate_shared.states import DeviceState, Outcome, RolloutState


def take_step(db: FleetDb, rollout: str) -> Transition:
    with write(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
        transition = step(view, None, db.now)
        write_transition(session, view, transition, db.orders, actor="engine", now=db.now)
    return transition


def bring_down(db: FleetDb, rollout: str) -> None:
    with write(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
        write_transition(
            session, view, roll_back(view, Sentence.plain("it is bad"), db.now), db.orders, actor="engine", now=db.now
        )


def started(db: FleetDb, version: int = 2, devices: int = 2) -> str:
    rollout = db.rollout(version, [f"locker-{n:02}" for n in range(devices)], waves=[{"count": 1}])
    take_step(db, rollout)
    return rollout


def canary(db: FleetDb, rollout: str) -> RolloutDevice:
    with read(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
    return db.row(rollout, view.members(0)[0].device)


def test_a_started_wave_has_orders_in_the_outbox(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        row = canary(db, rollout)

        assert row.state == "published"
        assert row.assignment_seq == 1
        assert row.deadline is not None
        assert [each.dedup for each in db.outbox()] == [f"{rollout}:{row.device_id}:1:1"]
        assert db.state(rollout) == "running"


def step_and_die(db: FleetDb, rollout: str) -> None:
    with write(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
        write_transition(session, view, step(view, None, db.now), db.orders, actor="engine", now=db.now)
        session.flush()
        raise RuntimeError


def test_all_or_nothing(tmp_path: Path) -> None:
    """A kill in the middle of a step leaves the rollout as it was before."""
    with fleet_db(tmp_path, devices=2) as db:
        rollout = db.rollout(2, ["locker-00", "locker-01"])
        with pytest.raises(RuntimeError):
            step_and_die(db, rollout)
        with read(db.engine) as session:
            left = [session.get(DeviceAssignment, name) for name in ("locker-00", "locker-01")]

        assert db.state(rollout) == "scheduled"
        assert left == [None, None]
        assert db.outbox() == []


def test_the_way_back_is_a_new_signed_order_to_the_devices_own_version(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        name = canary(db, rollout).device_id
        db.report(name, Outcome.PROVEN, seq=1)
        bring_down(db, rollout)
        forward, back = db.assignments(name)

    assert (forward.seq, forward.slots["address-match"].release_seq, forward.slots["address-match"].allow_older) == (
        1,
        2,
        False,
    )
    assert (back.seq, back.slots["address-match"].release_seq, back.slots["address-match"].allow_older) == (2, 1, True)
    assert back.reason == "it is bad"
    assert back.rollout == rollout


def test_where_the_previous_version_was_revoked_the_newest_good_one_is_taken(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.version(3)
        db.version(4)
        db.device("kiosk", version=3)
        rollout = db.rollout(4, ["kiosk"])
        take_step(db, rollout)
        with write(db.engine) as session:
            session.get_one(Version, 3).state = "revoked"
            session.get_one(Version, 2).denied = True
        bring_down(db, rollout)

        assert db.assignments("kiosk")[-1].slots["address-match"].release_seq == 1


def test_the_version_is_denied_and_loses_its_alias(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        with read(db.engine) as session:
            on_trial = session.get_one(Model, MODEL).challenger
        bring_down(db, rollout)
        with read(db.engine) as session:
            model, version = session.get_one(Model, MODEL), session.get_one(Version, 2)

    assert on_trial == 2
    assert (model.champion, model.challenger, version.denied) == (None, None, True)


def test_a_completed_version_is_the_champion(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        with write(db.engine) as session:
            view = load_view(session, rollout, since=db.now)
            done = Transition(
                state=RolloutState.COMPLETED, reason="proven on 2 of 2 devices", action="rollout.completed"
            )
            write_transition(session, view, done, db.orders, actor="engine", now=db.now)
        with read(db.engine) as session:
            model, row = session.get_one(Model, MODEL), session.get_one(Rollout, rollout)

    assert (model.champion, model.challenger) == (2, None)
    assert row.finished_at == db.now


def test_the_previous_version_is_the_one_that_runs_when_the_order_goes_out(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.version(3)
        rollout = db.rollout(3, ["locker-00"])
        db.report("locker-00", Outcome.PROVEN, seq=0, version=2, active=2)
        take_step(db, rollout)

        assert db.row(rollout, "locker-00").previous_version == 2


def test_every_step_is_in_the_audit_chain(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        bring_down(db, rollout)
        with read(db.engine) as session:
            assert audit.verify_chain(session) is None


def test_an_empty_transition_writes_nothing(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        with read(db.engine) as session:
            before = session.get_one(Rollout, rollout).revision
        take_step(db, rollout)
        with read(db.engine) as session:
            assert session.get_one(Rollout, rollout).revision == before


def test_the_outbox_refuses_a_second_copy_of_an_order(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        db.says(canary(db, rollout).device_id, DeviceState.FETCHING, seq=1)
        take_step(db, rollout)
        with read(db.engine) as session:
            assert len(session.exec(select(Outbox)).all()) == 1


def test_what_is_said_is_stored_with_its_code(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        bring_down(db, rollout)
        with read(db.engine) as session:
            view = load_view(session, rollout, since=db.now)
            row = session.get_one(Rollout, rollout)
            assert isinstance(view.reason, Sentence)
            assert (row.reason, row.said["code"]) == ("it is bad", "text")
            codes = {device.reason.code for device in view.devices if isinstance(device.reason, Sentence)}
            assert codes == {"device.withdrawn", "device.not_reached"}


def test_a_text_that_another_release_wrote_beside_a_code_is_only_a_text(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = started(db)
        with write(db.engine) as session:
            session.get_one(Rollout, rollout).reason = "written by a release without codes"
        with read(db.engine) as session:
            reason = load_view(session, rollout, since=db.now).reason
    assert (reason, isinstance(reason, Sentence)) == ("written by a release without codes", False)
