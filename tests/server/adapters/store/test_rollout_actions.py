from pathlib import Path

import pytest

from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import AuditEvent, DeviceSlot, Rollout
from wavegate_server.adapters.store.rollout_actions import act_on_rollout
from wavegate_server.core.rollout.actions import Action
from wavegate_shared.errors import UsageError


def do(db: FleetDb, rollout: str, action: Action, reason: str = "") -> bool:
    with write(db.engine) as session:
        return act_on_rollout(session, rollout, action, actor="ana", orders=db.orders, now=db.now, reason=reason)


def test_an_action_changes_the_rollout_once(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        rollout = db.rollout(2, ["locker-00", "locker-01"])

        assert do(db, rollout, "pause", "lunch")
        assert not do(db, rollout, "pause")
        with read(db.engine) as session:
            row, event = session.get_one(Rollout, rollout), session.get_one(AuditEvent, 2)

    assert (row.state, row.reason) == ("paused", "paused by ana: lunch")
    assert (event.actor, event.action) == ("ana", "rollout.pause")


def test_an_unknown_rollout_is_not_found(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db, pytest.raises(UsageError) as refused:
        do(db, "r-none", "pause")
    assert refused.value.code == "not_found"


def test_a_finished_rollout_cannot_be_rolled_back_while_its_devices_are_in_another(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.version(3)
        first = db.rollout(2, ["locker-00"])
        with write(db.engine) as session:
            session.get_one(Rollout, first).state = "completed"
            session.get_one(DeviceSlot, ("locker-00", MODEL)).version = 2
        second = db.rollout(3, ["locker-00"])

        with pytest.raises(UsageError, match=f"is in rollout {second}"):
            do(db, first, "rollback")
