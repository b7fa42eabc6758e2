"""Chart series: the level by range, gaps, merged percentiles, never too many points."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from wavegate_server.adapters.database.connection import open_engine, read, write
from wavegate_server.adapters.database.tables import METADATA, Device, DeviceEvent, DeviceRollup, TelemetryWindow
from wavegate_server.adapters.reads.series import MAX_POINTS, RANGES, device_series
from wavegate_shared.errors import UsageError
from wavegate_shared.histogram import Histogram

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path / 'w.db'}")
    METADATA.create_all(opened)
    with write(opened) as session:
        session.add(Device(id="a", hardware_class="x", site="y", shard=0, created_at=NOW))
    yield opened
    opened.dispose()


def latencies(value: float, count: int) -> bytes:
    histogram = Histogram()
    histogram.add(value, count)
    return histogram.encode()


def rollup(level: int, bucket: int, version: int, value: float, count: int) -> DeviceRollup:
    return DeviceRollup(
        device_id="a", level=level, bucket=bucket, slot="m", version=version, model="m", requests=count, errors=0,
        latency=latencies(value, count), score_sum=9.0, score_count=10, rss_mb=50.0 + version,
    )  # fmt: skip


def window(start_s: float, value: float, count: int, seconds: float = 5) -> TelemetryWindow:
    return TelemetryWindow(
        device_id="a", slot="m", model="m", version=1, start=int(start_s * 1000), seconds=seconds, received=0,
        requests=count, errors=0, latency=latencies(value, count), score_sum=0, score_count=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "level"), [("15m", 0), ("1h", 60), ("24h", 60), ("7d", 3600), ("30d", 3600), ("1y", 86400)]
)
def test_the_level_follows_the_range(engine: Engine, name: str, level: int) -> None:
    with read(engine) as session:
        assert device_series(session, NOW, "a", range_s=RANGES[name]).level == level


@pytest.mark.parametrize("name", list(RANGES))
def test_no_range_gives_too_many_points(engine: Engine, name: str) -> None:
    with write(engine) as session:
        for level in (60, 3600, 86400):
            for bucket in range(NOW_S // level * level - 1600 * level, NOW_S + 1, level):
                session.add(rollup(level, bucket, 1, 10, 1))
        for second in range(0, 900, 1):
            session.add(window(NOW_S - second, 10, 1, seconds=1))
    with read(engine) as session:
        series = device_series(session, NOW, "a", range_s=RANGES[name])
    assert 50 < len(series.t) <= MAX_POINTS


def test_two_versions_in_one_bucket_are_merged_not_averaged(engine: Engine) -> None:
    bucket = NOW_S - 600
    with write(engine) as session:
        session.add(rollup(60, bucket, 1, 10, 990))
        session.add(rollup(60, bucket, 2, 1000, 10))
    with read(engine) as session:
        series = device_series(session, NOW, "a", range_s=3600)
    assert series.p50_ms[0] == pytest.approx(10, rel=0.03)
    assert series.p99_ms[0] == pytest.approx(10, rel=0.03)  # rank 989 of 1000; the mean of both p99s would be 505
    assert (series.rate_per_s[0], series.score[0], series.labels[0]) == (1000 / 60, 0.9, 20)
    assert (series.rss_mb[0], series.version[0]) == (52.0, 2)


def test_a_silent_time_is_a_gap(engine: Engine) -> None:
    with write(engine) as session:
        for minutes in (10, 9, 6):
            session.add(rollup(60, NOW_S - 60 * minutes, 1, 10, 5))
    with read(engine) as session:
        series = device_series(session, NOW, "a", range_s=3600)
    assert [value is None for value in series.p50_ms] == [False, False, True, True, False]
    assert {len(column) for column in (series.t, series.p95_ms, series.errors, series.anon_mb)} == {5}


def test_short_windows_keep_their_step_in_the_last_minutes(engine: Engine) -> None:
    with write(engine) as session:
        for n in range(12):
            session.add(window(NOW_S - 60 + 5 * n, 10, 5))
    with read(engine) as session:
        series = device_series(session, NOW, "a", range_s=900, model="m")
    assert (series.step_s, len(series.t)) == (5, 12)
    assert None not in series.p50_ms


def test_swaps_and_reverts_are_marked_inside_the_range(engine: Engine) -> None:
    with write(engine) as session:
        for minutes, state in ((90, "probation"), (20, "probation"), (19, "committed"), (5, "reverting")):
            at = NOW - timedelta(minutes=minutes)
            session.add(DeviceEvent(device_id="a", at=at, kind="state", version=2, state=state))
    with read(engine) as session:
        series = device_series(session, NOW, "a", range_s=3600)
    assert [(swap.kind, NOW_S - swap.at_s) for swap in series.swaps] == [("swap", 1200), ("revert", 300)]


def test_a_range_that_makes_no_sense_and_an_unknown_device(engine: Engine) -> None:
    with read(engine) as session:
        with pytest.raises(UsageError, match="invalid"):
            device_series(session, NOW, "a", range_s=5)
        with pytest.raises(UsageError, match="not_found"):
            device_series(session, NOW, "nope", range_s=900)
