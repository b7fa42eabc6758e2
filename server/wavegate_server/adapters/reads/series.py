"""Reading a device's history as chart series: at most `MAX_POINTS` points, whatever the range.

The level follows the range: raw windows for the last minutes, else the 60 s, 3600 s or 86400 s roll-ups. Histograms that
fall into one point are merged before a percentile is taken; percentiles are never averaged.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlmodel import Session

from wavegate_server.adapters.reads.device_slots import shown_model
from wavegate_server.adapters.reads.page import columns, rows, unix_ms, unix_s
from wavegate_shared.errors import UsageError
from wavegate_shared.histogram import Histogram
from wavegate_shared.states import DeviceState

__all__ = ["MAX_POINTS", "RANGES", "DeviceSeries", "Swap", "device_series"]

MAX_POINTS = 1500
RANGES: dict[str, int] = {
    "15m": 900,
    "1h": 3600,
    "6h": 6 * 3600,
    "24h": 86400,
    "7d": 7 * 86400,
    "30d": 30 * 86400,
    "1y": 366 * 86400,
}
"""Range names of pages and API, in seconds."""
_RAW_S = 900
_LEVELS = (60, 3600, 86400)
_RAW_STEPS = (1, 2, 5, 10, 15, 30, 60)


@dataclass(frozen=True, slots=True)
class Swap:
    """A moment at which the version that answers changed. `kind`: swap, revert."""

    at_s: float
    version: int
    kind: str


@dataclass(frozen=True, slots=True)
class DeviceSeries:
    """Columns of equal length, one entry per point; None where nothing was measured, so that charts show the gap.

    `level` is the source in seconds (0: raw windows), `step_s` the width of a point, `t` Unix seconds of its start.
    """

    device: str
    model: str
    start_s: int
    end_s: int
    level: int
    step_s: int
    t: tuple[int, ...]
    p50_ms: tuple[float | None, ...]
    p95_ms: tuple[float | None, ...]
    p99_ms: tuple[float | None, ...]
    score: tuple[float | None, ...]
    labels: tuple[int, ...]
    rate_per_s: tuple[float | None, ...]
    errors: tuple[int, ...]
    rss_mb: tuple[float | None, ...]
    anon_mb: tuple[float | None, ...]
    version: tuple[int | None, ...]
    swaps: tuple[Swap, ...]


@dataclass(slots=True)
class _Point:
    latency: Histogram
    requests: int = 0
    errors: int = 0
    score_sum: float = 0.0
    labels: int = 0
    rss_mb: float | None = None
    anon_mb: float | None = None
    version: int = 0


def device_series(
    session: Session, now: datetime, device_id: str, *, range_s: int, model: str | None = None
) -> DeviceSeries:
    """A device's series of one model over the last `range_s` seconds.

    Args:
        session: an open read.
        now: aware UTC.
        device_id: which device.
        range_s: how far back, at least 60.
        model: None: the one its line in the fleet table shows.

    Raises:
        UsageError: `invalid` for a range below a minute; `not_found` for an unknown device.
    """
    if range_s < 60:
        raise UsageError("invalid", f"a range of {range_s} s; at least 60")
    device = columns("device")
    if not rows(session, select(device.id).where(device.id == device_id)):
        raise UsageError("not_found", f"no device {device_id!r}")
    start = now - timedelta(seconds=range_s)
    model = model or shown_model(session, device_id)
    if range_s <= _RAW_S:
        level, found = 0, _raw(session, device_id, model, start)
        step = _raw_step(found, range_s)
    else:
        level = next((size for size in _LEVELS if range_s / size < MAX_POINTS), _LEVELS[-1])
        found = _rollups(session, device_id, model, level, start)
        step = level
    return _columns(
        (device_id, model), (unix_s(start), unix_s(now)), (level, step), found, _swaps(session, device_id, model, start)
    )


def _raw(session: Session, device_id: str, model: str, start: datetime) -> list[Any]:
    window = columns("telemetry_window")
    query = select(
        (window.start / 1000).label("at"), window.seconds, window.version, window.requests, window.errors,
        window.latency, window.score_sum, window.score_count, window.rss_mb, window.anon_mb,
    ).where(window.start >= unix_ms(start), window.device_id == device_id, window.slot == model)  # fmt: skip
    return rows(session, query.order_by(window.start))


def _raw_step(found: list[Any], range_s: int) -> int:
    """A step no shorter than the windows, so that an ordinary window does not look like a gap after every point."""
    widest = max((row.seconds for row in found), default=1.0)
    return next((s for s in _RAW_STEPS if s >= widest and range_s / s < MAX_POINTS), _RAW_STEPS[-1])


def _rollups(session: Session, device_id: str, model: str, level: int, start: datetime) -> list[Any]:
    rollup = columns("device_rollup")
    first = unix_s(start) // level * level
    query = select(
        rollup.bucket.label("at"), rollup.version, rollup.requests, rollup.errors, rollup.latency,
        rollup.score_sum, rollup.score_count, rollup.rss_mb, rollup.anon_mb,
    ).where(
        rollup.device_id == device_id, rollup.level == level, rollup.bucket >= first, rollup.slot == model
    )  # fmt: skip
    return rows(session, query.order_by(rollup.bucket, rollup.version))


def _columns(
    whose: tuple[str, str], span: tuple[int, int], grain: tuple[int, int], found: list[Any], swaps: tuple[Swap, ...]
) -> DeviceSeries:
    level, step = grain
    points: dict[int, _Point] = {}
    for row in found:
        _add(points.setdefault(int(row.at) // step * step, _Point(Histogram())), row)
    times = tuple(range(min(points), max(points) + step, step)) if points else ()
    line = [points.get(at) for at in times]
    return DeviceSeries(
        device=whose[0],
        model=whose[1],
        start_s=span[0],
        end_s=span[1],
        level=level,
        step_s=step,
        t=times,
        p50_ms=tuple(p.latency.quantile(0.5) if p else None for p in line),
        p95_ms=tuple(p.latency.quantile(0.95) if p else None for p in line),
        p99_ms=tuple(p.latency.quantile(0.99) if p else None for p in line),
        score=tuple(p.score_sum / p.labels if p and p.labels else None for p in line),
        labels=tuple(p.labels if p else 0 for p in line),
        rate_per_s=tuple(p.requests / step if p else None for p in line),
        errors=tuple(p.errors if p else 0 for p in line),
        rss_mb=tuple(p.rss_mb if p else None for p in line),
        anon_mb=tuple(p.anon_mb if p else None for p in line),
        version=tuple(p.version if p else None for p in line),
        swaps=swaps,
    )


def _add(point: _Point, row: Any) -> None:
    point.latency.merge(Histogram.decode(row.latency))
    point.requests += row.requests
    point.errors += row.errors
    point.score_sum += row.score_sum
    point.labels += row.score_count
    point.rss_mb = _greater(point.rss_mb, row.rss_mb)
    point.anon_mb = _greater(point.anon_mb, row.anon_mb)
    point.version = row.version


def _greater(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)


def _swaps(session: Session, device_id: str, model: str, start: datetime) -> tuple[Swap, ...]:
    event = columns("device_event")
    query = select(event.at, event.version, event.state).where(
        event.device_id == device_id,
        event.model == model,
        event.at >= start,
        event.kind == "state",
        event.state.in_((DeviceState.PROBATION, DeviceState.REVERTING)),
    )
    kinds = {DeviceState.PROBATION: "swap", DeviceState.REVERTING: "revert"}
    found = rows(session, query.order_by(event.id))
    return tuple(Swap(row.at.timestamp(), row.version, kinds[DeviceState(row.state)]) for row in found)
