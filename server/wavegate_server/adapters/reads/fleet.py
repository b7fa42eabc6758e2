"""Reading the fleet: how many devices are well, and the table of devices with their recent figures.

Recent figures come from the one-minute roll-ups: percentiles from merged histograms, never averaged, and only those of the
version a device runs now. Not here: one device in depth (`reads_device`), charts (`reads_series`).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Subquery, case, func, or_, select
from sqlmodel import Session

from wavegate_server.adapters.reads.device_slots import SlotRow, running_on, shown, slot_rows, slot_totals
from wavegate_server.adapters.reads.page import MAX_LIMIT, Page, columns, cursor_text, cursor_value, rows, unix_s
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.histogram import Histogram

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
    """One line of the fleet table.

    Attributes:
        model, version, standby_version, phase: of the model that stands for the device, see `device_slots.shown`; `phase` is the
            agent's own state name, `version` 0: nothing runs yet.
        slots: all its models.
        recent: figures of `model`.
    """

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
    slots: tuple[SlotRow, ...] = ()
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


def health_column(now: datetime, totals: Subquery) -> ColumnElement[str]:
    """The SQL expression of `Health` over devices outer-joined with `slot_totals()`, so that filters run in the database."""
    device = columns("device")
    silent = or_(device.last_seen.is_(None), device.last_seen < now - timedelta(seconds=OFFLINE_AFTER_S))
    return case(
        (device.state == "revoked", Health.REVOKED.value),
        (device.state == "pending", Health.PENDING.value),
        (silent, Health.OFFLINE.value),
        (or_(totals.c.troubled > 0, device.clock != "ok", device.cloned != ""), Health.ATTENTION.value),
        (totals.c.updating > 0, Health.UPDATING.value),
        (func.coalesce(totals.c.version, 0) == 0, Health.EMPTY.value),
        else_=Health.SERVING.value,
    )


def fleet_summary(session: Session, now: datetime) -> FleetSummary:
    """Counts by health and version, the filters' choices, and the fleet's recent latency and accuracy."""
    device = columns("device")
    health, joined = _health(now)
    counted = {
        Health(name): int(n)
        for name, n in rows(session, select(health, func.count()).select_from(joined).group_by(health))
    }
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
    health, joined = _health(now)
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(device.id.table, health).select_from(joined).where(*_conditions(chosen, health))
    query = query.order_by(device.id).limit(limit + 1)
    if cursor:
        query = query.where(device.id > cursor_value(cursor))
    found = rows(session, query)
    items = _device_rows(session, now, found[:limit], chosen.model)
    return Page(items, cursor_text(items[-1].id) if len(found) > limit else None)


def device_ids(session: Session, now: datetime, chosen: DeviceFilter) -> list[str]:
    """The ids of all devices that fit, in order: what a rollout's selection becomes."""
    device = columns("device")
    health, joined = _health(now)
    query = select(device.id).select_from(joined).where(*_conditions(chosen, health)).order_by(device.id)
    return [str(name) for (name,) in rows(session, query)]


def device_row(session: Session, now: datetime, device_id: str, model: str | None = None) -> DeviceRow:
    """One device's line of the table, with the figures of `model` where one is named.

    Raises:
        UsageError: `not_found`.
    """
    device = columns("device")
    health, joined = _health(now)
    query = select(device.id.table, health).select_from(joined).where(device.id == device_id)
    found = rows(session, query)
    if not found:
        raise UsageError("not_found", Sentence("missing.device", name=repr(device_id)))
    return _device_rows(session, now, found, model)[0]


def _health(now: datetime) -> tuple[Any, Any]:
    """The health column, and what to select it from."""
    totals = slot_totals()
    device = columns("device")
    return health_column(now, totals).label("health"), device.id.table.outerjoin(
        totals, totals.c.device_id == device.id
    )


def _device_rows(session: Session, now: datetime, found: list[Any], model: str | None) -> tuple[DeviceRow, ...]:
    slots = slot_rows(session, [row.id for row in found])
    chosen = {row.id: shown(slots.get(row.id, ()), model) for row in found}
    recent = recent_figures(session, now, {name: (slot.model, slot.version) for name, slot in chosen.items()})
    return tuple(_row(row, chosen[row.id], slots.get(row.id, ()), recent.get(row.id, Recent())) for row in found)


def recent_figures(session: Session, now: datetime, versions: dict[str, tuple[str, int]]) -> dict[str, Recent]:
    """The last `RECENT_MIN` minutes of some devices.

    Args:
        session: an open read.
        now: aware UTC.
        versions: device id -> (model, version it runs); figures are of that version, the sparkline of all of the model.
    """
    if not versions:
        return {}
    rollup = columns("device_rollup")
    first = unix_s(now) // _MINUTE_S * _MINUTE_S - (RECENT_MIN - 1) * _MINUTE_S
    query = select(
        rollup.device_id, rollup.slot, rollup.bucket, rollup.version, rollup.requests, rollup.errors, rollup.latency,
        rollup.score_sum, rollup.score_count,
    ).where(
        rollup.device_id.in_(versions), rollup.level == _MINUTE_S, rollup.bucket >= first
    )  # fmt: skip
    by_device: dict[str, list[Any]] = {}
    for row in rows(session, query):
        if row.slot == versions[row.device_id][0]:
            by_device.setdefault(row.device_id, []).append(row)
    return {name: _recent(found, versions[name][1], first, unix_s(now)) for name, found in by_device.items()}


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


def _row(row: Any, slot: SlotRow, slots: tuple[SlotRow, ...], recent: Recent) -> DeviceRow:
    return DeviceRow(
        id=row.id,
        health=Health(row.health),
        state=row.state,
        hardware_class=row.hardware_class,
        site=row.site,
        model=slot.model if slot.version else "",
        version=slot.version,
        standby_version=slot.standby_version,
        phase=slot.state,
        agent_version=row.agent_version,
        clock=row.clock,
        last_seen=row.last_seen,
        revision=row.revision,
        bench=row.bench,
        slots=slots,
        recent=recent,
    )


def _conditions(chosen: DeviceFilter, health: ColumnElement[str]) -> list[ColumnElement[bool]]:
    device = columns("device")
    wanted: list[ColumnElement[bool]] = []
    if chosen.text:
        wanted.append(device.id.icontains(chosen.text, autoescape=True))
    if chosen.health is not None:
        wanted.append(health == chosen.health.value)
    if chosen.model is not None:
        wanted.append(running_on(device.id, chosen.model, chosen.version))
    plain = ((device.hardware_class, chosen.hardware_class), (device.site, chosen.site), (device.state, chosen.state))
    wanted += [column == value for column, value in plain if value is not None]
    wanted += [device.groups[("labels", key)].as_string() == value for key, value in chosen.labels]
    return wanted


def version_shares(session: Session) -> tuple[VersionShare, ...]:
    """How many active devices run each version, by model and version."""
    device, slot = columns("device"), columns("device_slot")
    query = select(slot.model, slot.version, func.count()).join(device.id.table, device.id == slot.device_id)
    query = query.where(slot.version > 0, device.state == "active")
    found = rows(session, query.group_by(slot.model, slot.version).order_by(slot.model, slot.version))
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
