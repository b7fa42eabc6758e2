"""The fleet table: health, filters, recent figures from merged histograms."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from wavegate_server.adapters.database.connection import open_engine, read, write
from wavegate_server.adapters.database.tables import METADATA, Device, DeviceRollup, DeviceSlot
from wavegate_server.adapters.reads.fleet import (
    OFFLINE_AFTER_S,
    RECENT_MIN,
    DeviceFilter,
    Health,
    device_row,
    device_rows,
    fleet_summary,
)
from wavegate_shared.errors import UsageError
from wavegate_shared.histogram import Histogram

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path / 'w.db'}")
    METADATA.create_all(opened)
    yield opened
    opened.dispose()


def add(session: Session, name: str, *, phase: str = "idle", version: int = 2, seen_s: float = 5, **more: Any) -> None:
    fields = {"hardware_class": "pi4", "site": "rtm", "state": "active", **more}
    if version:
        session.add(DeviceSlot(device_id=name, model="m", version=version, state=phase))
    seen = NOW - timedelta(seconds=seen_s)
    session.add(Device(id=name, shard=0, created_at=NOW, last_seen=seen, **fields))


def bucket(
    session: Session, name: str, minutes_ago: int, version: int, latencies: list[float], model: str = "m", **more: Any
) -> None:
    histogram = Histogram()
    for latency in latencies:
        histogram.add(latency)
    start = int(NOW.timestamp()) // 60 * 60 - 60 * minutes_ago
    fields = {"errors": 0, "score_sum": 0.0, "score_count": 0, **more}
    session.add(
        DeviceRollup(
            device_id=name, level=60, bucket=start, slot=model, version=version, model=model,
            requests=len(latencies), latency=histogram.encode(), **fields,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "health"),
    [
        ({}, Health.SERVING),
        ({"phase": "committed"}, Health.SERVING),
        ({"phase": "fetching"}, Health.UPDATING),
        ({"phase": "fallback"}, Health.ATTENTION),
        ({"clock": "suspect"}, Health.ATTENTION),
        ({"version": 0}, Health.EMPTY),
        ({"seen_s": OFFLINE_AFTER_S - 1}, Health.SERVING),
        ({"seen_s": OFFLINE_AFTER_S + 1, "phase": "broken"}, Health.OFFLINE),
        ({"state": "pending"}, Health.PENDING),
        ({"state": "revoked", "phase": "broken"}, Health.REVOKED),
    ],
)
def test_health(engine: Engine, fields: dict[str, Any], health: Health) -> None:
    with write(engine) as session:
        add(session, "a", **fields)
    with read(engine) as session:
        assert device_row(session, NOW, "a").health is health
        assert fleet_summary(session, NOW).health[health] == 1
        assert [row.id for row in device_rows(session, NOW, DeviceFilter(health=health)).items] == ["a"]


def test_filters_join_and_special_characters_are_plain_text(engine: Engine) -> None:
    with write(engine) as session:
        add(session, "a_1", site="x")
        add(session, "ab1", version=3)
        add(session, "c%1", hardware_class="n100")
    cases = [
        (DeviceFilter(text="_"), ["a_1"]),
        (DeviceFilter(text="%"), ["c%1"]),
        (DeviceFilter(text="A"), ["a_1", "ab1"]),
        (DeviceFilter(model="m", version=2), ["a_1", "c%1"]),
        (DeviceFilter(hardware_class="pi4", site="rtm"), ["ab1"]),
        (DeviceFilter(model="other"), []),
    ]
    with read(engine) as session:
        for chosen, names in cases:
            assert [row.id for row in device_rows(session, NOW, chosen).items] == names, chosen


def test_pages_follow_each_other_without_gap_or_repeat(engine: Engine) -> None:
    with write(engine) as session:
        for number in range(7):
            add(session, f"d{number}")
    seen: list[str] = []
    cursor = None
    with read(engine) as session:
        while True:
            page = device_rows(session, NOW, DeviceFilter(), cursor=cursor, limit=3)
            seen += [row.id for row in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert seen == [f"d{number}" for number in range(7)]


def test_figures_are_of_the_running_version_and_percentiles_are_merged(engine: Engine) -> None:
    """Ninety-nine fast minutes' worth and one slow request: an average of two p99s would be far off."""
    with write(engine) as session:
        add(session, "a")
        bucket(session, "a", 3, 1, [500.0] * 50)
        bucket(session, "a", 2, 2, [10.0] * 990, score_sum=95, score_count=100)
        bucket(session, "a", 1, 2, [100.0] * 5, score_sum=1, score_count=1, errors=2)
        bucket(session, "a", RECENT_MIN, 2, [900.0] * 500)
    with read(engine) as session:
        recent = device_row(session, NOW, "a").recent
    assert (recent.requests, recent.errors, recent.labels) == (995, 2, 101)
    assert recent.p99_ms == pytest.approx(10, rel=0.03)
    assert recent.score == pytest.approx(96 / 101)
    assert len(recent.spark) == RECENT_MIN
    assert [value is not None for value in recent.spark[-4:]] == [True, True, True, False]
    assert recent.spark[-4] == pytest.approx(500, rel=0.03)  # the sparkline shows the earlier version too


def test_a_device_of_two_models_is_found_by_each_and_counted_once(engine: Engine) -> None:
    with write(engine) as session:
        add(session, "a")
        session.add(DeviceSlot(device_id="a", model="z", version=7, state="idle"))
        add(session, "b")
        bucket(session, "a", 2, 2, [10.0] * 10)
        bucket(session, "a", 2, 7, [50.0] * 30, model="z")
    with read(engine) as session:
        summary = fleet_summary(session, NOW)
        found = {
            model: [row.id for row in device_rows(session, NOW, DeviceFilter(model=model)).items] for model in "mz"
        }
        row = device_rows(session, NOW, DeviceFilter(model="z")).items[0]
        first = device_row(session, NOW, "a")
    assert (summary.total, summary.health[Health.SERVING]) == (2, 2)
    assert [(share.model, share.version, share.devices) for share in summary.versions] == [("m", 2, 2), ("z", 7, 1)]
    assert found == {"m": ["a", "b"], "z": ["a"]}
    assert (row.model, row.version, row.recent.requests) == ("z", 7, 30)
    assert (first.model, first.version, first.recent.requests) == ("m", 2, 10)
    assert [slot.model for slot in first.slots] == ["m", "z"]


def test_trouble_of_one_model_is_the_devices(engine: Engine) -> None:
    with write(engine) as session:
        add(session, "a")
        session.add(DeviceSlot(device_id="a", model="z", version=0, state="broken"))
    with read(engine) as session:
        row = device_row(session, NOW, "a")
    assert (row.health, row.phase) == (Health.ATTENTION, "broken")


def test_an_unknown_device_and_a_foreign_cursor_are_refused(engine: Engine) -> None:
    with read(engine) as session:
        with pytest.raises(UsageError) as unknown:
            device_row(session, NOW, "nope")
        with pytest.raises(UsageError) as foreign:
            device_rows(session, NOW, DeviceFilter(), cursor="%%%")
    assert (unknown.value.code, foreign.value.code) == ("not_found", "invalid")


def test_an_empty_fleet(engine: Engine) -> None:
    with read(engine) as session:
        summary = fleet_summary(session, NOW)
    assert (summary.total, summary.p99_ms, summary.versions) == (0, None, ())
