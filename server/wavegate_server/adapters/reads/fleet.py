"""Reading the fleet: how many devices are well, and the table of devices with their recent figures.

Recent figures come from the one-minute roll-ups: percentiles from merged histograms, never averaged, and only those of the
version a device runs now. Not here: one device in depth (`reads_device`), charts (`reads_series`).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlmodel import Session

from wavegate_server.adapters.reads.page import MAX_LIMIT, Page, columns, cursor_text, cursor_value, rows, unix_s
from wavegate_server.core.sentences import Sentence
from wavegate_shared.assignment import DEFAULT_SLOT
from wavegate_shared.errors import UsageError
from wavegate_shared.histogram import Histogram
from wavegate_shared.states import DeviceState

__all__ = [
    "OFFLINE_AFTER_S",
    "RECENT_MIN",
    "DeviceFilter",
    "DeviceRow",
    "FleetSummary",
    "Health",
    "Recent",
    "VersionShare",
    "device_ids",
    "device_row",
    "device_rows",
    "fleet_summary",
    "health_column",
    "recent_figures",
    "version_shares",
]

OFFLINE_AFTER_S = 180
"""A device that said nothing for this long counts as offline: three windows of 60 s."""
RECENT_MIN = 30
"""Recent figures and sparklines look back this many minutes."""
_MINUTE_S = 60


class Health(StrEnum):
    """What the fleet page counts; the first that holds, in this order: revoked, pending, offline, attention, ..."""

    SERVING = "serving"
    UPDATING = "updating"
    ATTENTION = "attention"
    EMPTY = "empty"
    OFFLINE = "offline"
    PENDING = "pending"
    REVOKED = "revoked"


_RESTING = (DeviceState.IDLE, DeviceState.COMMITTED)
_TROUBLED = (DeviceState.REVERTING, DeviceState.FALLBACK, DeviceState.BROKEN)


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices: None is any. `text` is looked for in the id, `version` counts only with a `model`.

    `labels` are (key, value) pairs that all must hold.
    """

    text: str = ""
    health: Health | None = None
    hardware_class: str | None = None
    site: str | None = None
    model: str | None = None
    version: int | None = None
    state: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Recent:
    """A device's last `RECENT_MIN` minutes. p50/p99 in ms, `score` the live metric's mean, None: nothing measured.

    `spark` is one p99 per minute, oldest first, None where no request was served.
    """

    requests: int = 0
    errors: int = 0
    rate_per_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    score: float | None = None
    labels: int = 0
    spark: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One line of the fleet table. `phase` is the agent's own state name, `version` 0: nothing runs yet."""

    id: str
    health: Health
    state: str
    hardware_class: str
    site: str
    model: str
    version: int
    standby_version: int
    phase: str
    agent_version: str
    clock: str
    last_seen: datetime | None
    revision: int
    bench: bool = False
    recent: Recent = field(default_factory=Recent)


@dataclass(frozen=True, slots=True)
class VersionShare:
    """How many devices run a version."""

    model: str
    version: int
    devices: int


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """The head of the fleet page. Latencies in ms over the last `RECENT_MIN` minutes, from merged histograms."""

    total: int
    health: dict[Health, int]
    versions: tuple[VersionShare, ...]
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    models: tuple[str, ...]
    rate_per_s: float
    errors: int
    requests: int
    p50_ms: float | None
    p99_ms: float | None
    score: float | None


def health_column(now: datetime) -> ColumnElement[str]:
    """The SQL expression of `Health`, so that filters and counts run in the database."""
    device = columns("device")
    phase = device.running[(DEFAULT_SLOT, "state")].as_string()
    version = device.running[(DEFAULT_SLOT, "version")].as_integer()
    silent = or_(device.last_seen.is_(None), device.last_seen < now - timedelta(seconds=OFFLINE_AFTER_S))
    return case(
        (device.state == "revoked", Health.REVOKED.value),
        (device.state == "pending", Health.PENDING.value),
        (silent, Health.OFFLINE.value),
        (or_(phase.in_(_TROUBLED), device.clock != "ok"), Health.ATTENTION.value),
        (and_(phase.is_not(None), phase.not_in(_RESTING)), Health.UPDATING.value),
        (func.coalesce(version, 0) == 0, Health.EMPTY.value),
        else_=Health.SERVING.value,
    )


def fleet_summary(session: Session, now: datetime) -> FleetSummary:
    """Counts by health and version, the filters' choices, and the fleet's recent latency and accuracy."""
    device = columns("device")
    health = health_column(now)
    counted = {Health(name): int(n) for name, n in rows(session, select(health, func.count()).group_by(health))}
    totals = _fleet_totals(session, now)
    return FleetSummary(
        total=sum(counted.values()),
        health={name: counted.get(name, 0) for name in Health},
        versions=version_shares(session),
        classes=_distinct(session, device.hardware_class),
        sites=_distinct(session, device.site),
        models=_distinct(session, columns("model").name),
        **totals,
    )


def device_rows(
    session: Session, now: datetime, chosen: DeviceFilter, *, cursor: str | None = None, limit: int = 50
) -> Page[DeviceRow]:
    """One page of devices in the order of their ids, each with its recent figures.

    Raises:
        UsageError: `invalid`, for a cursor that is not ours.
    """
    device = columns("device")
    health = health_column(now).label("health")
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(device.id.table, health).where(*_conditions(chosen, now)).order_by(device.id).limit(limit + 1)
    if cursor:
        query = query.where(device.id > cursor_value(cursor))
    found = rows(session, query)
    recent = recent_figures(session, now, {row.id: _slot(row.running).get("version") or 0 for row in found[:limit]})
    items = tuple(_row(row, recent.get(row.id, Recent())) for row in found[:limit])
    return Page(items, cursor_text(items[-1].id) if len(found) > limit else None)


def device_ids(session: Session, now: datetime, chosen: DeviceFilter) -> list[str]:
    """The ids of all devices that fit, in order: what a rollout's selection becomes."""
    device = columns("device")
    query = select(device.id).where(*_conditions(chosen, now)).order_by(device.id)
    return [str(name) for (name,) in rows(session, query)]


def device_row(session: Session, now: datetime, device_id: str) -> DeviceRow:
    """One device's line of the table.

    Raises:
        UsageError: `not_found`.
    """
    device = columns("device")
    query = select(device.id.table, health_column(now).label("health")).where(device.id == device_id)
    found = rows(session, query)
    if not found:
        raise UsageError("not_found", Sentence("missing.device", name=repr(device_id)))
    recent = recent_figures(session, now, {device_id: _slot(found[0].running).get("version") or 0})
    return _row(found[0], recent.get(device_id, Recent()))


def recent_figures(session: Session, now: datetime, versions: dict[str, int]) -> dict[str, Recent]:
    """The last `RECENT_MIN` minutes of some devices.

    Args:
        session: an open read.
        now: aware UTC.
        versions: device id -> version it runs; figures are of that version, the sparkline of all.
    """
    if not versions:
        return {}
    rollup = columns("device_rollup")
    first = unix_s(now) // _MINUTE_S * _MINUTE_S - (RECENT_MIN - 1) * _MINUTE_S
    query = select(
        rollup.device_id, rollup.bucket, rollup.version, rollup.requests, rollup.errors, rollup.latency,
        rollup.score_sum, rollup.score_count,
    ).where(
        rollup.device_id.in_(versions), rollup.level == _MINUTE_S, rollup.bucket >= first, rollup.slot == DEFAULT_SLOT
    )  # fmt: skip
    by_device: dict[str, list[Any]] = {}
    for row in rows(session, query):
        by_device.setdefault(row.device_id, []).append(row)
    return {name: _recent(found, versions[name], first, unix_s(now)) for name, found in by_device.items()}


def _recent(found: list[Any], version: int, first: int, now_s: int) -> Recent:
    minutes: list[Histogram | None] = [None] * RECENT_MIN
    total = Histogram()
    requests = errors = labels = 0
    score_sum = 0.0
    since = now_s
    for row in found:
        histogram = _decoded(row.latency)
        at = (row.bucket - first) // _MINUTE_S
        if 0 <= at < RECENT_MIN:
            earlier = minutes[at]
            minutes[at] = histogram if earlier is None else Histogram.merged((earlier, histogram))
        if row.version != version:
            continue
        total.merge(histogram)
        requests, errors, labels = requests + row.requests, errors + row.errors, labels + row.score_count
        score_sum += row.score_sum
        since = min(since, row.bucket)
    return Recent(
        requests=requests,
        errors=errors,
        rate_per_s=requests / max(now_s - since, 1),
        p50_ms=total.quantile(0.5),
        p99_ms=total.quantile(0.99),
        score=score_sum / labels if labels else None,
        labels=labels,
        spark=tuple(None if h is None else h.quantile(0.99) for h in minutes),
    )


@lru_cache(maxsize=4096)
def _decoded(data: bytes) -> Histogram:
    """Minutes that are over do not change, and every open page reads them each second. Never to be merged into."""
    return Histogram.decode(data)


def _row(row: Any, recent: Recent) -> DeviceRow:
    slot = _slot(row.running)
    return DeviceRow(
        id=row.id,
        health=Health(row.health),
        state=row.state,
        hardware_class=row.hardware_class,
        site=row.site,
        model=slot.get("model") or "",
        version=slot.get("version") or 0,
        standby_version=slot.get("standby_version") or 0,
        phase=slot.get("state") or "",
        agent_version=row.agent_version,
        clock=row.clock,
        last_seen=row.last_seen,
        revision=row.revision,
        bench=row.bench,
        recent=recent,
    )


def _slot(running: dict[str, Any] | None) -> dict[str, Any]:
    slot = (running or {}).get(DEFAULT_SLOT)
    return slot if isinstance(slot, dict) else {}


def _conditions(chosen: DeviceFilter, now: datetime) -> list[ColumnElement[bool]]:
    device = columns("device")
    wanted: list[ColumnElement[bool]] = []
    if chosen.text:
        wanted.append(device.id.icontains(chosen.text, autoescape=True))
    if chosen.health is not None:
        wanted.append(health_column(now) == chosen.health.value)
    if chosen.model is not None:
        wanted.append(device.running[(DEFAULT_SLOT, "model")].as_string() == chosen.model)
        if chosen.version is not None:
            wanted.append(device.running[(DEFAULT_SLOT, "version")].as_integer() == chosen.version)
    plain = ((device.hardware_class, chosen.hardware_class), (device.site, chosen.site), (device.state, chosen.state))
    wanted += [column == value for column, value in plain if value is not None]
    wanted += [device.groups[("labels", key)].as_string() == value for key, value in chosen.labels]
    return wanted


def version_shares(session: Session) -> tuple[VersionShare, ...]:
    """How many active devices run each version, by model and version."""
    device = columns("device")
    model = device.running[(DEFAULT_SLOT, "model")].as_string()
    version = device.running[(DEFAULT_SLOT, "version")].as_integer()
    query = select(model, version, func.count()).where(version > 0, device.state == "active")
    found = rows(session, query.group_by(model, version).order_by(model, version))
    return tuple(VersionShare(str(name), int(number), int(n)) for name, number, n in found)


def _distinct(session: Session, column: Any) -> tuple[str, ...]:
    return tuple(str(value) for (value,) in rows(session, select(column).distinct().order_by(column)) if value)


def _fleet_totals(session: Session, now: datetime) -> dict[str, Any]:
    fleet = columns("fleet_rollup")
    first = unix_s(now) // _MINUTE_S * _MINUTE_S - (RECENT_MIN - 1) * _MINUTE_S
    query = select(fleet.bucket, fleet.requests, fleet.errors, fleet.latency, fleet.score_sum, fleet.score_count)
    total = Histogram()
    requests = errors = labels = 0
    score_sum = 0.0
    since = unix_s(now)
    for row in rows(session, query.where(fleet.level == _MINUTE_S, fleet.bucket >= first)):
        total.merge(_decoded(row.latency))
        requests, errors, labels = requests + row.requests, errors + row.errors, labels + row.score_count
        score_sum += row.score_sum
        since = min(since, row.bucket)
    return {
        "rate_per_s": requests / max(unix_s(now) - since, 1),
        "errors": errors,
        "requests": requests,
        "p50_ms": total.quantile(0.5),
        "p99_ms": total.quantile(0.99),
        "score": score_sum / labels if labels else None,
    }
