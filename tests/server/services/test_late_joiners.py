"""Newcomers and returners on a real database: they get the fleet default, a few at a time, and say nothing about the version."""

from pathlib import Path

from sqlmodel import col, select

from tests.server.services.test_engine import NAMES, POLICY, Scene, scene
from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Model, Rollout, RolloutDevice, Version
from wavegate_server.adapters.store.rollout_actions import act_on_rollout
from wavegate_server.core.rollout.late_joiners import Choice
from wavegate_server.services.late_joiners import LateJoiners


def completed(db: FleetDb, directory: Path, version: int = 2, **policy: object) -> tuple[Scene, LateJoiners]:
    """A rollout of a version to all eight devices is over, and late joiners are looked for."""
    late = LateJoiners(db.engine)
    world = scene(db, directory, rounds=late.tick)
    world.seconds(11)
    values = {**POLICY, "waves": [{"name": "all", "percent": 100}], **policy}
    rollout = db.rollout(version, NAMES, choice=Choice(), **values)
    world.until(lambda: db.state(rollout) == "completed")
    return world, late


def joins(world: Scene, *names: str, version: int = 0) -> None:
    for name in names:
        world.db.device(name, version=version)
        world.running[name] = version


def late_rollouts(db: FleetDb) -> list[Rollout]:
    with read(db.engine) as session:
        return list(session.exec(select(Rollout).where(col(Rollout.late)).order_by(col(Rollout.created_at))))


def members(db: FleetDb, rollout: str) -> dict[str, str]:
    with read(db.engine) as session:
        query = select(RolloutDevice).where(RolloutDevice.rollout_id == rollout)
        return {row.device_id: row.state for row in session.exec(query)}


def test_a_newcomer_gets_what_the_fleet_has(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path)
        joins(world, "new-1", "new-2")
        world.until(lambda: world.running["new-1"] == 2)
        (rollout,) = late_rollouts(db)
        world.until(lambda: db.state(rollout.id) == "completed")
        world.seconds(40)
        with read(db.engine) as session:
            champion = session.get_one(Model, MODEL).champion
        assert (members(db, rollout.id), champion) == ({"new-1": "proven", "new-2": "proven"}, 2)
        assert rollout.created_by == "fleet default"
        assert len(late_rollouts(db)) == 1  # nothing is done twice, and it leaves no default of its own


def test_a_device_from_a_drawer_comes_up_to_the_fleets_version_and_never_goes_back(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path, 3)
        joins(world, "old", version=1)
        joins(world, "newer", version=4)
        world.until(lambda: world.running["old"] == 3)
        world.seconds(40)
        assert world.running["newer"] == 4
        assert [members(db, one.id) for one in late_rollouts(db)] == [{"old": "proven"}]


def test_one_that_cannot_run_it_fails_alone_and_is_not_tried_again(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path)
        world.fails_on = {"odd": "golden_failed"}
        joins(world, "odd", "new-1", "new-2")
        world.until(lambda: bool(late_rollouts(db)) and db.state(late_rollouts(db)[0].id) == "completed")
        world.seconds(60)
        (rollout,) = late_rollouts(db)
        assert members(db, rollout.id) == {"odd": "failed", "new-1": "proven", "new-2": "proven"}
        with read(db.engine) as session:
            assert not session.exec(select(Version).where(Version.number == 2)).one().denied
        assert set(world.running.values()) == {2, 0}


def test_when_most_of_them_fail_it_stops_and_the_fleet_keeps_its_version(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path)
        names = [f"new-{number}" for number in range(4)]
        world.fails_on = dict.fromkeys(names[:3], "broken")
        joins(world, *names)
        world.until(
            lambda: bool(late_rollouts(db)) and db.state(late_rollouts(db)[0].id) in ("rolled_back", "cancelled")
        )
        world.seconds(60)
        with read(db.engine) as session:
            assert not session.exec(select(Version).where(Version.number == 2)).one().denied
            assert session.get_one(Model, MODEL).champion == 2
        assert len(late_rollouts(db)) == 1
        assert {world.running[name] for name in NAMES} == {2}


def test_a_few_at_a_time(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path)
        names = [f"new-{number}" for number in range(9)]
        joins(world, *names)
        while not late_rollouts(db):
            world.second(answer=False)
        world.second(answer=False)
        states = sorted(members(db, late_rollouts(db)[0].id).values())
        assert states == ["published"] * 5 + ["scheduled"] * 4


def test_a_version_that_was_rolled_back_is_not_handed_out(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path)
        newer = db.rollout(3, NAMES, choice=Choice(), **{**POLICY, "waves": [{"name": "all", "percent": 100}]})
        world.until(lambda: db.state(newer) == "completed")
        with write(db.engine) as session:
            act_on_rollout(session, newer, "rollback", actor="ana", orders=db.orders, now=db.now)
        world.until(lambda: db.state(newer) == "rolled_back")
        joins(world, "new")
        world.until(lambda: world.running["new"] != 0)
        assert world.running["new"] == 2


def test_with_ignore_newcomers_get_nothing(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path, late_joiners="ignore")
        joins(world, "new")
        world.seconds(40)
        assert (world.running["new"], late_rollouts(db)) == (0, [])


def test_a_newcomer_that_does_not_come_through_holds_no_rollout_up(tmp_path: Path) -> None:
    """It goes to sleep with its order; a rollout to all would have been refused for it until the deadline."""
    with fleet_db(tmp_path, devices=8) as db:
        world, _ = completed(db, tmp_path)
        joins(world, "sleepy")
        while not late_rollouts(db):
            world.second(answer=False)
        world.second(answer=False)
        (late,) = late_rollouts(db)
        assert members(db, late.id) == {"sleepy": "published"}
        newer = db.rollout(3, [*NAMES, "sleepy"], **{**POLICY, "waves": [{"name": "all", "percent": 100}]})
        assert members(db, late.id) == {"sleepy": "skipped"}
        world.until(lambda: db.state(late.id) == "completed")
        world.until(lambda: db.state(newer) == "completed")
        assert world.running["sleepy"] == 3
