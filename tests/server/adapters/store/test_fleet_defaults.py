"""Fleet defaults in the tables: what a rollout leaves behind, and who waits for it."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import AuditEvent, Device, DeviceSlot, Rollout, Version
from wavegate_server.adapters.reads.fleet_defaults import default_rows
from wavegate_server.adapters.store.fleet_defaults import (
    clear_default,
    defaults_in_effect,
    leave_default,
    set_default,
    waiting_devices,
)
from wavegate_server.core.rollout.late_joiners import Choice, parse_choice
from wavegate_shared.errors import UsageError


def give(db: FleetDb, version: int, choice: Choice = Choice(), *, ahead: bool = False) -> int:  # noqa: B008 - frozen
    """A default set by a person; its number."""
    with write(db.engine) as session:
        row = set_default(session, model=MODEL, version=version, choice=choice, actor="ana", now=db.now, ahead=ahead)
        return row.id or 0


def waiting(db: FleetDb) -> dict[int, list[str]]:
    """Who waits for which default, by its version."""
    with read(db.engine) as session:
        found = defaults_in_effect(session).get(MODEL, [])
        choices = [parse_choice(one.choice) for one in found]
        return {one.version: waiting_devices(session, one, choices[:at], db.now) for at, one in enumerate(found)}


def change(db: FleetDb, name: str, **values: object) -> None:
    with write(db.engine) as session:
        device = session.get_one(Device, name)
        for key, value in values.items():
            setattr(device, key, value)


def slot(db: FleetDb, name: str, **values: object) -> None:
    with write(db.engine) as session:
        row = session.get(DeviceSlot, (name, MODEL)) or DeviceSlot(device_id=name, model=MODEL)
        for key, value in values.items():
            setattr(row, key, value)
        session.add(row)


def mark(db: FleetDb, number: int, **values: object) -> None:
    with write(db.engine) as session:
        version = session.exec(select(Version).where(Version.number == number)).one()
        for key, value in values.items():
            setattr(version, key, value)
        session.add(version)


def newcomer(db: FleetDb, name: str, **values: object) -> None:
    """A device that enrolled and said hello, and runs nothing."""
    db.device(name, version=0)
    change(db, name, last_seen=db.now, **values)


def test_who_waits_for_a_default(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        db.version(1)
        db.version(2)
        for name in ("new", "returner", "newer", "asleep", "revoked", "ordered", "taken", "elsewhere"):
            newcomer(db, name)
        slot(db, "returner", version=1, assigned_version=1)
        slot(db, "newer", version=3, assigned_version=3)
        slot(db, "ordered", assigned_version=2)
        slot(db, "taken", removed=True)
        change(db, "asleep", last_seen=db.now - timedelta(hours=1))
        change(db, "revoked", state="revoked")
        change(db, "elsewhere", site="lyon")
        give(db, 2, Choice(site="a"))

        assert waiting(db) == {2: ["new", "returner"]}


def test_the_newest_default_that_fits_counts(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        for number in (1, 2):
            db.version(number)
        for name, labels in (("plain", {}), ("early", {"ring": "early"}), ("late", {"ring": "late"})):
            newcomer(db, name, groups={"labels": labels})
        give(db, 1)
        give(db, 2, Choice(labels={"ring": "early"}))
        assert waiting(db) == {2: ["early"], 1: ["late", "plain"]}
        give(db, 1, Choice())
        with read(db.engine) as session:
            assert [(row.version, row.in_effect) for row in default_rows(session)] == [(1, True), (2, True), (1, False)]
        assert waiting(db)[1] == ["early", "late", "plain"]  # the newest one is for all


def test_a_denied_version_is_never_handed_out_and_the_one_before_is_in_effect_again(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        for number in (1, 2):
            db.version(number)
        newcomer(db, "new")
        give(db, 1)
        give(db, 2)
        assert waiting(db) == {2: ["new"]}
        mark(db, 2, denied=True)
        assert waiting(db) == {1: ["new"]}
        mark(db, 1, state="revoked")
        assert waiting(db) == {}


def test_a_device_that_a_rollout_reached_since_is_left_to_that(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        db.version(3)
        for name in ("locker-00", "locker-01"):
            change(db, name, last_seen=db.now)
        give(db, 2)
        assert waiting(db) == {2: ["locker-00", "locker-01"]}
        db.later(1)
        rollout = db.rollout(3, ["locker-00"])
        assert waiting(db) == {2: ["locker-01"]}
        with write(db.engine) as session:
            session.get_one(Rollout, rollout).state = "rolled_back"
        assert waiting(db) == {2: ["locker-01"]}
        db.later(1)
        give(db, 2)  # set again: tried again
        for name in ("locker-00", "locker-01"):
            change(db, name, last_seen=db.now)
        assert waiting(db)[2] == ["locker-00", "locker-01"]


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"choice": {}}, "all"),
        ({"choice": {"site": "a"}}, "site=a"),
        ({"choice": None}, None),
        ({"choice": {}, "late": True}, None),
        ({"choice": {}, "policy": {"late_joiners": "ignore"}}, None),
    ],
)
def test_what_a_completed_rollout_leaves_behind(tmp_path: Path, values: dict[str, object], left: str | None) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        name = db.rollout(2, ["locker-00"])
        with write(db.engine) as session:
            rollout = session.get_one(Rollout, name)
            for key, value in values.items():
                setattr(rollout, key, value)
            leave_default(session, rollout, db.now)
        with read(db.engine) as session:
            found = [(str(row.choice), row.version, row.rollout) for row in default_rows(session)]
    assert found == ([] if left is None else [(left, 2, name)])


def test_clearing_brings_the_default_before_it_into_effect_and_is_noted(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        for number in (1, 2):
            db.version(number)
        newcomer(db, "new")
        give(db, 1)
        number = give(db, 2)
        for _ in range(2):
            with write(db.engine) as session:
                clear_default(session, number, actor="ana", now=db.now)
        assert waiting(db) == {1: ["new"]}
        with read(db.engine) as session:
            actions = [event.action for event in session.exec(select(AuditEvent)) if event.action.startswith("fleet.")]
    assert actions == ["fleet.default_set", "fleet.default_set", "fleet.default_clear"]


def test_what_cannot_be_a_default_is_refused(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.version(3, state="imported")
        db.version(4)
        mark(db, 4, denied=True)
        for version, choice, code, words in (
            (9, Choice(), "not_found", "no version 9"),
            (3, Choice(), "conflict", "only a published version"),
            (4, Choice(), "conflict", "was rolled back before"),
            (2, Choice(site="nowhere"), "conflict", "no registered device fits 'site=nowhere'"),
        ):
            with pytest.raises(UsageError, match=words) as refused:
                give(db, version, choice)
            assert refused.value.code == code
        give(db, 2, Choice(site="nowhere"), ahead=True)
        with write(db.engine) as session, pytest.raises(UsageError, match="no fleet default 77"):
            clear_default(session, 77, actor="ana", now=db.now)


def test_a_few_are_kept_to_go_back_to(tmp_path: Path) -> None:
    """Every completed rollout leaves one: the list would grow for ever."""
    with fleet_db(tmp_path, devices=1) as db:
        other = give(db, 2, Choice(site="site-0"))
        for _ in range(8):
            give(db, 2)
        with read(db.engine) as session:
            rows = default_rows(session)
    assert [str(row.choice) for row in rows] == ["all"] * 5 + ["site=site-0"]
    assert rows[-1].id == other
