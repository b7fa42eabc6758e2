from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Device, DeviceAssignment, DeviceEvent, DeviceReport, DeviceSlot
from wavegate_server.adapters.store.device_messages import DeviceMessageStore
from wavegate_server.adapters.store.rollout_transitions import write_transition
from wavegate_server.adapters.store.rollout_view import load_view
from wavegate_server.core.rollout.step import roll_back, step
from wavegate_server.core.sentences import Sentence
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import Hello, Running, StateEvent

NAME = "locker-00"


def started(db: FleetDb) -> str:
    rollout = db.rollout(2, [NAME])
    with write(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
        write_transition(session, view, step(view, None, db.now), db.orders, actor="engine", now=db.now)
    return rollout


def brought_down(db: FleetDb, rollout: str) -> None:
    with write(db.engine) as session:
        view = load_view(session, rollout, since=db.now)
        write_transition(
            session, view, roll_back(view, Sentence.plain("bad"), db.now), db.orders, actor="engine", now=db.now
        )


def hello(version: int = 1, seq: int = 0, **changes: Any) -> Hello:
    slots = {MODEL: Running(model=MODEL, version=version, sha256="e" * 64)}
    values: dict[str, Any] = {"boot": 7, "agent_version": "1.2", "slots": slots, "assignment_seq": seq}
    return Hello(**(values | changes))


def slot(db: FleetDb, name: str = "locker-00", model: str = MODEL) -> DeviceSlot:
    with read(db.engine) as session:
        return session.get_one(DeviceSlot, (name, model))


def device(db: FleetDb) -> Device:
    with read(db.engine) as session:
        return session.get_one(Device, NAME)


def test_a_hello_is_the_inventory(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.later(5)
        db.take(NAME, hello(facts={"memory_total_mb": 512}, quarantined=["f" * 64], clock="suspect"))
        found = device(db)

    assert (found.agent_version, found.clock, found.last_seen) == ("1.2", "suspect", db.now)
    assert slot(db).version == 1
    assert found.facts == {"memory_total_mb": 512}
    assert found.quarantined == {"digests": ["f" * 64]}


def test_a_hello_is_answered_with_the_desired_state(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        started(db)
        db.later(1)
        db.take(NAME, hello())
        first, answer = db.assignments(NAME)

    assert answer == first


def test_a_device_with_no_order_gets_no_answer(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.take(NAME, hello())
        assert db.outbox() == []


def test_an_expired_order_is_not_sent(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        started(db)
        db.now += timedelta(days=15)
        db.take(NAME, hello())

        assert len(db.outbox()) == 1


def test_states_move_the_row(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        db.later(2)
        db.says(NAME, DeviceState.FETCHING, seq=1)
        accepted = db.row(rollout, NAME)
        db.later(3)
        db.says(NAME, DeviceState.PROBATION, seq=1)
        swapped = db.row(rollout, NAME)

    assert accepted.state == "accepted"
    assert accepted.deadline == accepted.accepted_at + timedelta(seconds=3600)  # type: ignore[operator]
    assert (swapped.state, swapped.swapped_at, swapped.accepted_at) == ("swapped", db.now, accepted.accepted_at)


def test_a_state_acknowledges_the_order(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        started(db)
        db.says(NAME, DeviceState.OFFERED, seq=1)
        with read(db.engine) as session:
            assert session.get_one(DeviceAssignment, NAME).acknowledged
        assert device(db).assignment_seq == 1


def test_a_word_about_another_order_moves_nothing(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        db.says(NAME, DeviceState.PROBATION, seq=9)
        assert db.row(rollout, NAME).state == "published"


def test_a_proven_report_is_the_proof(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        db.later(90)
        db.report(NAME, Outcome.PROVEN, seq=1, rollout=rollout, served=120, probation_s=60.0, bytes_fetched=900)
        row = db.row(rollout, NAME)
        with read(db.engine) as session:
            report = session.exec(select(DeviceReport)).one()

    assert row.state == "proven"
    assert row.swapped_at == db.now - timedelta(seconds=60)
    assert slot(db).version == 2
    assert (report.outcome, report.served, report.bytes_fetched, report.rollout_id) == ("proven", 120, 900, rollout)
    assert report.envelope == b"envelope 1"


def test_a_repeated_report_counts_once(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        started(db)
        verified = db.report(NAME, Outcome.PROVEN, seq=1)
        db.take(NAME, verified)
        with read(db.engine) as session:
            assert len(session.exec(select(DeviceReport)).all()) == 1
            assert len(session.exec(select(DeviceEvent).where(DeviceEvent.kind == "report")).all()) == 1


def test_a_refusal_keeps_code_and_words(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        db.report(NAME, Outcome.REFUSED, seq=1, active=1, code="golden_failed", detail="accuracy 0.61, floor 0.95")
        row = db.row(rollout, NAME)

        assert (row.state, row.code, row.reason) == ("failed", "golden_failed", "accuracy 0.61, floor 0.95")
        assert row.swapped_at is None
        assert slot(db).version == 1


def test_a_report_of_the_way_back_ends_it(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        db.report(NAME, Outcome.PROVEN, seq=1)
        brought_down(db, rollout)
        db.report(NAME, Outcome.PROVEN, seq=1)
        unchanged = db.row(rollout, NAME).state
        db.report(NAME, Outcome.PROVEN, seq=2, version=1, active=1)

        assert unchanged == "proven"
        assert db.row(rollout, NAME).state == "rolled_back"


def test_a_hello_after_the_way_back_counts_when_the_report_was_lost(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        db.report(NAME, Outcome.PROVEN, seq=1)
        brought_down(db, rollout)
        db.take(NAME, hello(version=2, seq=1))
        not_yet = db.row(rollout, NAME).state
        db.take(NAME, hello(version=1, seq=2))

        assert not_yet == "proven"
        assert db.row(rollout, NAME).state == "rolled_back"


def test_a_hello_that_names_the_order_counts_as_acceptance(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        db.take(NAME, hello(seq=1))
        assert db.row(rollout, NAME).state == "accepted"


def test_a_wrong_clock_on_the_device_is_not_believed(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        event = StateEvent(
            boot=1,
            seq=1,
            at=db.now - timedelta(days=400),
            assignment_seq=1,
            slot=MODEL,
            model=MODEL,
            version=2,
            state=DeviceState.PROBATION,
        )
        with write(db.engine) as session:
            DeviceMessageStore(db.topics).apply_up(session, NAME, event, db.now)

        assert db.row(rollout, NAME).swapped_at == db.now


def test_an_unknown_device_is_ignored(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        db.take("stranger", hello())
        with read(db.engine) as session:
            assert session.exec(select(DeviceEvent)).all() == []


def test_what_a_device_on_probation_served_is_kept_and_own_requests_are_not_counted(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = started(db)
        seq = db.row(rollout, NAME).assignment_seq
        said = []
        for served in (None, 0, 12):
            db.says(NAME, DeviceState.PROBATION, seq=seq, live_requests=served, detail="waits")
            said.append(db.row(rollout, NAME).live_requests)
        db.report(NAME, Outcome.PROVEN, seq=seq, served=13, self_requests=37)
        row = db.row(rollout, NAME)
    assert said == [None, 0, 12]
    assert (row.state, row.live_requests) == ("proven", 13)


def test_from_the_swap_on_the_server_says_what_answers(tmp_path: Path) -> None:
    """It said the old version for the whole probation, while the new one answered customers."""
    with fleet_db(tmp_path, devices=1) as db:

        def slot() -> tuple[int, int, str]:
            with read(db.engine) as session:
                row = session.get_one(DeviceSlot, ("locker-00", MODEL))
                return row.version, row.standby_version, row.state

        db.says("locker-00", DeviceState.BENCH, seq=1)
        assert slot() == (1, 0, "bench")
        db.says("locker-00", DeviceState.PROBATION, seq=1)
        assert slot() == (2, 1, "probation")
        db.says("locker-00", DeviceState.PROBATION, seq=1, live_requests=3)  # said again while it waits
        assert slot() == (2, 1, "probation")
        db.report("locker-00", Outcome.REVERTED, seq=1, version=2, active=1, rollout=None)
        assert slot()[:2] == (1, 0)


@pytest.mark.parametrize("other", ["", "other"], ids=["as an earlier agent said it", "as it is said"])
def test_a_model_that_is_only_measured_changes_no_name(tmp_path: Path, other: str) -> None:
    """Its slot runs nothing yet. Taken for the label of release 0.1, the next assignment called the live model by it: `slot_missing`."""
    with fleet_db(tmp_path, devices=1) as db:
        slots = {MODEL: Running(model=MODEL, version=1), "other": Running(model=other, version=0)}
        db.take(NAME, hello(slots=slots))
        assert device(db).slot_label == ""
        started(db)
        assert list(db.assignments(NAME)[-1].slots) == [MODEL]


def test_the_label_of_an_agent_of_release_0_1_is_kept(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        for version, model in ((0, ""), (1, MODEL)):
            db.take(NAME, hello(slots={"main": Running(model=model, version=version)}))
            assert device(db).slot_label == "main"
