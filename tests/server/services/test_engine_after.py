"""The watch after a rollout on a real database: traffic begins an hour after it was completed."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.services.test_engine import NAMES, POLICY, Scene, decisions, reason, scene
from tests.support.fleet_db import FleetDb, fleet_db
from wavegate_server.core.gate.decision import replay

IDLE = {**POLICY, "waves": [{"name": "all", "percent": 100}], "idle_wave": "promote"}


def completed_at_night(db: FleetDb, directory: Path, version: int, **policy: Any) -> tuple[Scene, str]:
    """A rollout that no device had any traffic for, an hour ago."""
    world = scene(db, directory)
    world.seconds(11)
    world.idle = True
    rollout = db.rollout(version, NAMES, **{**IDLE, **policy})
    world.until(lambda: db.state(rollout) == "completed")
    db.later(3600)
    world.seconds(3)
    assert db.state(rollout) == "completed"
    world.idle = False
    return world, rollout


def test_a_version_that_is_bad_on_live_input_only_is_taken_back_when_traffic_begins(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, rollout = completed_at_night(db, tmp_path, 4)
        world.until(lambda: db.state(rollout) == "rolled_back")
        final = [each for each in decisions(db, rollout) if each.final]
        said = reason(db, rollout)
        again = replay(final[-1].evidence)
    assert set(world.running.values()) == {1}
    assert [each.verdict for each in final] == ["promote", "rollback"]
    assert (again.verdict.value, again.sentence) == ("rollback", final[-1].sentence)
    assert said.startswith("wrong on 8 of 8 devices: live accuracy fell 97.2 % -> 6")
    assert said.endswith("8 back on their previous version")


@pytest.mark.parametrize(
    ("version", "policy"),
    [(3, {}), (4, {"watch_s": 0.0}), (4, {"watch_s": 3000.0}), (4, {"probation": {"requests": 0}})],
    ids=["a good version", "switched off", "over before traffic began", "no live requests were asked for"],
)
def test_otherwise_a_completed_rollout_stays_completed(tmp_path: Path, version: int, policy: dict[str, Any]) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, rollout = completed_at_night(db, tmp_path, version, **policy)
        world.seconds(25)
        assert db.state(rollout) == "completed"
    assert set(world.running.values()) == {version}


def test_devices_that_have_moved_on_are_not_watched(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        world, rollout = completed_at_night(db, tmp_path, 3)
        world.idle = True
        newer = db.rollout(4, NAMES, **{**IDLE, "watch_s": 0.0})
        world.until(lambda: db.state(newer) == "completed")
        world.idle = False
        world.seconds(15)
        assert (db.state(rollout), db.state(newer)) == ("completed", "completed")
