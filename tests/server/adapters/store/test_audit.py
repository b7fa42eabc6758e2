from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.fleet_db import START, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import connect, read, write
from wavegate_server.adapters.database.tables import AuditEvent, Revision
from wavegate_server.adapters.store import audit


def filled(db: FleetDb, rows: int = 4) -> None:
    for number in range(rows):
        with write(db.engine) as session:
            audit.append(
                session,
                actor="ana",
                action="rollout.create",
                subject=f"rollout/r-{number}",
                now=START + timedelta(seconds=number),
                detail={"size": number, "share": 0.1, "name": "柜"},
            )


def test_an_untouched_chain_verifies(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        filled(db)
        with read(db.engine) as session:
            assert audit.verify_chain(session) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_event SET actor = 'eve' WHERE id = 3",
        "UPDATE audit_event SET detail = '{}' WHERE id = 3",
        "UPDATE audit_event SET at = '2020-01-01 00:00:00' WHERE id = 3",
        "DELETE FROM audit_event WHERE id = 2",
        "UPDATE audit_event SET hash = prev_hash WHERE id = 3",
    ],
)
def test_the_first_changed_row_is_named(tmp_path: Path, change: str) -> None:
    with fleet_db(tmp_path) as db:
        filled(db)
        with connect(db.engine) as connection:
            connection.execute(text(change))
        with read(db.engine) as session:
            assert audit.verify_chain(session) == 3


def test_the_hash_does_not_depend_on_the_time_zone() -> None:
    values: dict[str, Any] = {
        "actor": "a",
        "action": "b",
        "subject": "c",
        "detail": {},
        "prev_hash": audit.GENESIS,
        "hash": "",
    }
    here = AuditEvent(at=datetime(2026, 1, 1, 12, tzinfo=UTC), **values)
    there = AuditEvent(at=datetime(2026, 1, 1, 20, tzinfo=timezone(timedelta(hours=8))), **values)

    assert audit.chain_hash(here) == audit.chain_hash(there)


def test_every_row_bumps_the_revision(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        filled(db, rows=3)
        with read(db.engine) as session:
            assert session.get_one(Revision, 1).value == 3


def append_and_die(db: FleetDb) -> None:
    with write(db.engine) as session:
        audit.append(session, actor="ana", action="x", subject="y", now=START)
        raise RuntimeError


def test_what_is_rolled_back_leaves_no_gap(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        filled(db, rows=1)
        with pytest.raises(RuntimeError):
            append_and_die(db)
        filled(db, rows=1)
        with read(db.engine) as session:
            assert audit.verify_chain(session) is None
