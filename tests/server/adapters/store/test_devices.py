"""The register of devices, as the operator changes it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import Session, select

from wavegate_server.adapters.database.connection import open_engine, sqlite_url, write
from wavegate_server.adapters.database.tables import METADATA, AuditEvent, Device
from wavegate_server.adapters.store.devices import change_device, create_device, get_device
from wavegate_shared.errors import UsageError
from wavegate_shared.topics import shard_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    engine = open_engine(sqlite_url(tmp_path / "db"))
    METADATA.create_all(engine)
    with write(engine) as opened:
        yield opened
    engine.dispose()


def new(session: Session, device_id: str = "kiosk-1", **labels: str) -> Device:
    return create_device(
        session, device_id, hardware_class="edge-a", site="berlin", labels=labels, bench=False, actor="ada", now=NOW
    )


def test_a_new_device_is_pending_with_its_shard_and_an_audit_row(session: Session) -> None:
    device = new(session, ring="early")
    session.flush()
    assert (device.state, device.shard, device.groups) == (
        "pending",
        shard_of("kiosk-1"),
        {"labels": {"ring": "early"}},
    )
    row = session.exec(select(AuditEvent)).one()
    assert (row.actor, row.action, row.subject) == ("ada", "device.create", "device/kiosk-1")


@pytest.mark.parametrize("device_id", ["", "a/b", "#", "x" * 64, "server", "broker", "publisher", "ingest-3"])
def test_a_name_that_cannot_be_or_is_the_servers_own_is_refused(session: Session, device_id: str) -> None:
    with pytest.raises(UsageError) as raised:
        new(session, device_id)
    assert raised.value.code == "invalid"


def test_a_name_is_given_once(session: Session) -> None:
    new(session)
    with pytest.raises(UsageError, match="registered already"):
        new(session)


def test_a_change_touches_what_is_named_and_raises_the_revision(session: Session) -> None:
    device = new(session, ring="early", floor="2")
    change_device(session, device, site=None, labels={"ring": None, "new": "x"}, actor="ada", now=NOW)
    assert (device.site, device.groups["labels"], device.revision) == ("berlin", {"floor": "2", "new": "x"}, 2)
    change_device(session, device, site="hamburg", labels=None, actor="ada", now=NOW)
    assert (device.site, device.groups["labels"], device.revision) == ("hamburg", {"floor": "2", "new": "x"}, 3)


def test_an_unknown_device_is_not_found(session: Session) -> None:
    with pytest.raises(UsageError, match="no device 'kiosk-9'"):
        get_device(session, "kiosk-9")
