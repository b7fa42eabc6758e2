"""The hot tables: compiled SQL on both databases, watermarks, retention."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql

from tests.support.ingest import NOW, database, rows, window
from wavegate_server.adapters.database.connection import connect
from wavegate_server.adapters.database.tables import Device, DeviceRollup, FleetRollup, TelemetryWindow, Watermark
from wavegate_server.adapters.store.rollups import add_sums
from wavegate_server.adapters.store.telemetry import (
    append_windows,
    known_devices,
    last_seen,
    prune,
    read_watermarks,
    save_watermarks,
    upsert,
    window_row,
)
from wavegate_server.core.ingest import Place, Rollups, check_window


def test_a_window_row_holds_every_field_of_the_window(tmp_path: Path) -> None:
    engine = database(tmp_path, {})
    sent = window(1, rss_mb=80.5, anon_mb=1.5, agent_rss_mb=30.0, temperature_c=-4.0)
    with connect(engine) as connection:
        append_windows(connection, [window_row("dev-1", check_window(sent), 77)])
        append_windows(connection, [])
    (row,) = rows(engine, TelemetryWindow)
    assert row.slot == sent.model
    for name in ("model", "version", "seconds", "requests", "errors", "latency", "score_sum", "score_count"):
        assert getattr(row, name) == getattr(sent, name)
    for name in ("cpu_ms", "rss_mb", "anon_mb", "agent_rss_mb", "temperature_c"):
        assert getattr(row, name) == getattr(sent, name)
    assert (row.device_id, row.received, row.start) == ("dev-1", 77, int(sent.start.timestamp() * 1000))


def test_watermarks_are_written_over_and_read_for_whom_is_asked(tmp_path: Path) -> None:
    many = {f"dev-{number}": (1, number) for number in range(1201)}  # more than one SELECT takes
    with connect(database(tmp_path, {})) as connection:
        save_watermarks(connection, many)
        save_watermarks(connection, {"dev-7": (2, 1)})
        assert read_watermarks(connection, [*many, "nobody"]) == many | {"dev-7": (2, 1)}
        assert read_watermarks(connection, []) == {}


def test_the_same_statement_speaks_postgresql() -> None:
    dialect: Any = postgresql.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
    statement = upsert(Watermark.__table__, ("device_id",), ("device_id", "boot", "seq"))  # type: ignore[attr-defined]
    text, order = statement._text(dialect)
    assert text.count("%s") == 3
    assert "ON CONFLICT (device_id) DO UPDATE" in text
    assert order == (0, 1, 2)


def test_known_devices_and_last_seen(tmp_path: Path) -> None:
    engine = database(tmp_path, {"dev-1": "active", "dev-2": "revoked"})
    with connect(engine) as connection:
        assert {each.id: each.state for each in known_devices(connection).values()} == {
            "dev-1": "active",
            "dev-2": "revoked",
        }
        last_seen(connection, {"dev-1": NOW})
        last_seen(connection, {})
    assert {each.id: each.last_seen for each in rows(engine, Device)} == {"dev-1": NOW, "dev-2": None}


@pytest.mark.parametrize("chunk", [7, 1000])
def test_retention_takes_the_old_and_nothing_else(tmp_path: Path, chunk: int) -> None:
    engine = database(tmp_path, {"dev-1": "active"})
    rollups = Rollups()
    ages = [timedelta(hours=1), timedelta(hours=47), timedelta(hours=49), timedelta(days=15), timedelta(days=500)]
    sound = [check_window(window(1, start=NOW - age)) for age in ages for _ in range(5)]
    with connect(engine) as connection:
        append_windows(connection, [window_row("dev-1", each, 0) for each in sound])
        for each in sound:
            rollups.add("dev-1", Place("c", "s"), each)
        add_sums(connection, rollups.device_sums(), rollups.fleet_sums())
    assert prune(engine, NOW, raw_retention_h=48, chunk=chunk) == 15
    assert prune(engine, NOW, raw_retention_h=48, chunk=chunk) == 0
    assert len(rows(engine, TelemetryWindow)) == 10
    for table in (DeviceRollup, FleetRollup):
        kept = {level: sum(each.level == level for each in rows(engine, table)) for level in (60, 3600, 86400)}
        assert kept[60] == 3
        assert kept[3600] == 4
        assert kept[86400] >= 4
