"""Sums are added to what is there, by primary key."""

from pathlib import Path

from tests.support.ingest import database, rows, window
from wavegate_server.adapters.database.connection import connect
from wavegate_server.adapters.database.tables import DeviceRollup, FleetRollup
from wavegate_server.adapters.store.rollups import add_sums
from wavegate_server.core.ingest import Place, Rollups, check_window
from wavegate_shared.histogram import Histogram


def sums(device: str, *versions: int, site: str = "harbour") -> Rollups:
    rollups = Rollups()
    for version in versions:
        rollups.add(device, Place("locker-v2", site), check_window(window(1, version=version, rss_mb=80.0 + version)))
    return rollups


def test_sums_grow_and_keys_do_not_mix(tmp_path: Path) -> None:
    engine = database(tmp_path, {})
    for part in (sums("dev-1", 3), sums("dev-1", 3, 4), sums("dev-2", 3), sums("dev-3", 3, site="hill")):
        with connect(engine) as connection:
            add_sums(connection, part.device_sums(), part.fleet_sums())
    device = {(each.device_id, each.version): each for each in rows(engine, DeviceRollup) if each.level == 60}
    assert {key: each.requests for key, each in device.items()} == {
        ("dev-1", 3): 8,
        ("dev-1", 4): 4,
        ("dev-2", 3): 4,
        ("dev-3", 3): 4,
    }
    assert device[("dev-1", 3)].rss_mb == 83.0
    fleet = {(each.version, each.site): each for each in rows(engine, FleetRollup) if each.level == 86400}
    assert {key: each.requests for key, each in fleet.items()} == {
        (3, "harbour"): 12,
        (4, "harbour"): 4,
        (3, "hill"): 4,
    }
    assert Histogram.decode(fleet[(3, "harbour")].latency).count == 12


def test_more_buckets_than_one_statement_takes(tmp_path: Path) -> None:
    engine = database(tmp_path, {})
    for _ in range(2):
        rollups = Rollups()
        for number in range(1100):
            rollups.add(f"dev-{number}", Place("c", "s"), check_window(window(1)))
        with connect(engine) as connection:
            add_sums(connection, rollups.device_sums(), rollups.fleet_sums())
    stored = rows(engine, DeviceRollup)
    assert len(stored) == 3300
    assert {each.requests for each in stored} == {8}


def test_nothing_to_add_is_fine(tmp_path: Path) -> None:
    with connect(database(tmp_path, {})) as connection:
        add_sums(connection, {}, {})
