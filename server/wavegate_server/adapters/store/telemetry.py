"""The ingest's hot tables: raw windows, watermarks, and which devices may speak.

SQL is compiled once from the table classes and run on tuples through the driver (17 x `Session.add_all`). Raw windows are
append-only without a unique key: the watermark, written in the same transaction, is what drops duplicates. One ingest
writes at a time. Roll-ups: `adapters/store/rollups`. The transaction is the caller's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, bindparam, delete, func, insert, select, update
from sqlalchemy.sql.dml import Insert
from sqlmodel import col

from wavegate_server.adapters.database.connection import connect
from wavegate_server.adapters.database.tables import Device, DeviceRollup, FleetRollup, TelemetryWindow, Watermark
from wavegate_server.core.ingest import Mark, SoundWindow

__all__ = [
    "KnownDevice",
    "Statement",
    "append_windows",
    "known_devices",
    "last_seen",
    "prune",
    "read_watermarks",
    "save_watermarks",
    "upsert",
    "window_row",
]

_SELECT_CHUNK = 500
MINUTE_DAYS = 14
HOUR_DAYS = 400


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """What the ingest needs of the registry. `state`: pending, active or revoked. `public_keys`: PEM, those it may sign with."""

    id: str
    state: str
    public_keys: tuple[str, ...]
    hardware_class: str
    site: str
    certificate_serial: str


class Statement:
    """An INSERT compiled once per database, run on tuples in `columns` order."""

    def __init__(self, make: Any, columns: Sequence[str]) -> None:
        self._make = make
        self.columns = tuple(columns)
        self._compiled: dict[str, tuple[str, tuple[int, ...]]] = {}

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute for all rows; nothing for none."""
        if not rows:
            return
        text, order = self._text(connection.dialect)
        if order != tuple(range(len(self.columns))):
            rows = [tuple(row[at] for at in order) for row in rows]
        connection.exec_driver_sql(text, list(rows))

    def _text(self, dialect: Dialect) -> tuple[str, tuple[int, ...]]:
        known = self._compiled.get(dialect.name)
        if known is None:
            style = "qmark" if dialect.name == "sqlite" else "format"
            positional: Any = type(dialect)
            compiled = self._make(dialect.name).compile(
                dialect=positional(paramstyle=style), column_keys=list(self.columns)
            )
            order = tuple(self.columns.index(name) for name in compiled.positiontup or ())
            known = self._compiled[dialect.name] = (str(compiled), order)
        return known


def upsert(table: Any, keys: Sequence[str], columns: Sequence[str]) -> Statement:
    """INSERT of `columns`, or UPDATE of all but `keys` where the key is there already."""

    def make(dialect: str) -> Insert:
        if dialect == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as postgresql_insert

            statement: Any = postgresql_insert(table)
        else:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            statement = sqlite_insert(table)
        changed = {name: statement.excluded[name] for name in columns if name not in keys}
        made: Insert = statement.on_conflict_do_update(index_elements=list(keys), set_=changed)
        return made

    return Statement(make, columns)


_WINDOW_COLUMNS = (
    "device_id",
    "slot",
    "model",
    "version",
    "start",
    "seconds",
    "received",
    "requests",
    "errors",
    "latency",
    "score_sum",
    "score_count",
    "cpu_ms",
    "rss_mb",
    "anon_mb",
    "agent_rss_mb",
    "temperature_c",
)
_INSERT_WINDOW = Statement(lambda _dialect: insert(TelemetryWindow.__table__), _WINDOW_COLUMNS)  # type: ignore[attr-defined]
_SAVE_WATERMARK = upsert(Watermark.__table__, ("device_id",), ("device_id", "boot", "seq"))  # type: ignore[attr-defined]


def window_row(device: str, sound: SoundWindow, received_ms: int) -> tuple[Any, ...]:
    """The row of a window, for `append_windows`."""
    window = sound.window
    return (
        device,
        window.model,  # what an agent of release 0.1 calls its slot says nothing
        window.model,
        window.version,
        sound.start_ms,
        window.seconds,
        received_ms,
        window.requests,
        window.errors,
        window.latency,
        window.score_sum,
        window.score_count,
        window.cpu_ms,
        window.rss_mb,
        window.anon_mb,
        window.agent_rss_mb,
        window.temperature_c,
    )


def append_windows(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Append raw windows, as `window_row` makes them."""
    _INSERT_WINDOW.run(connection, rows)


def read_watermarks(connection: Connection, devices: Iterable[str]) -> dict[str, Mark]:
    """The watermarks of these devices; none for a device that never sent anything."""
    wanted = list(devices)
    marks: dict[str, Mark] = {}
    for start in range(0, len(wanted), _SELECT_CHUNK):
        part = wanted[start : start + _SELECT_CHUNK]
        query = select(col(Watermark.device_id), col(Watermark.boot), col(Watermark.seq)).where(
            col(Watermark.device_id).in_(part)
        )
        marks.update({device: (boot, seq) for device, boot, seq in connection.execute(query)})
    return marks


def save_watermarks(connection: Connection, marks: Mapping[str, Mark]) -> None:
    """Set these watermarks."""
    _SAVE_WATERMARK.run(connection, [(device, boot, seq) for device, (boot, seq) in marks.items()])


def known_devices(connection: Connection) -> dict[str, KnownDevice]:
    """The registry, by device id."""
    query = select(
        col(Device.id),
        col(Device.state),
        col(Device.hardware_class),
        col(Device.site),
        col(Device.certificate_serial),
        col(Device.public_key),
        col(Device.previous_public_key),
        col(Device.next_public_key),
    )
    found = {}
    for name, state, hardware_class, site, serial, *keys in connection.execute(query):
        found[name] = KnownDevice(name, state, tuple(key for key in keys if key), hardware_class, site, serial)
    return found


def last_seen(connection: Connection, seen: Mapping[str, datetime]) -> None:
    """Note when devices were last heard of."""
    if seen:
        statement = update(Device).where(col(Device.id) == bindparam("device")).values(last_seen=bindparam("at"))
        connection.execute(statement, [{"device": device, "at": at} for device, at in seen.items()])


def prune(engine: Engine, now: datetime, *, raw_retention_h: float, chunk: int = 2000) -> int:
    """Delete what is past its time: raw windows, minute buckets after 14 days, hour buckets after 400; days stay.

    In small transactions, so that the writer is never held up for long. A repeated call goes on where one stopped.

    Returns:
        How many raw windows were deleted.
    """
    seconds = int(now.timestamp())
    deleted = 0
    while True:
        with connect(engine) as connection:
            oldest = (
                select(col(TelemetryWindow.id))
                .where(col(TelemetryWindow.start) < int((seconds - raw_retention_h * 3600) * 1000))
                .order_by(col(TelemetryWindow.start))
                .limit(chunk)
            )
            count = connection.execute(delete(TelemetryWindow).where(col(TelemetryWindow.id).in_(oldest))).rowcount
        deleted += count
        if count < chunk:
            break
    for level, days in ((60, MINUTE_DAYS), (3600, HOUR_DAYS)):
        _prune_rollups(engine, level, seconds - days * 86400)
    return deleted


def _prune_rollups(engine: Engine, level: int, before: int) -> None:
    with connect(engine) as connection:
        connection.execute(delete(FleetRollup).where(col(FleetRollup.level) == level, col(FleetRollup.bucket) < before))
        devices = list(connection.scalars(select(col(Device.id))))
    for device in devices:
        old = (
            col(DeviceRollup.device_id) == device,
            col(DeviceRollup.level) == level,
            col(DeviceRollup.bucket) < before,
        )
        with connect(engine) as connection:
            if connection.scalar(select(func.count()).select_from(DeviceRollup).where(*old)):
                connection.execute(delete(DeviceRollup).where(*old))
