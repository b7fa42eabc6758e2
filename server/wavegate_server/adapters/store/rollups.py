"""Adds a batch's sums to the roll-up tables: read what is there, merge histograms, write back, one row per bucket.

In the transaction of the raw windows, so that a roll-up counts a window exactly when it is stored. What the sums are:
`core/ingest`. Reading roll-ups: `reads`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from wavegate_server.adapters.database.tables import DeviceRollup, FleetRollup
from wavegate_server.adapters.store.telemetry import upsert
from wavegate_server.core.ingest import DeviceKey, FleetKey, Sum
from wavegate_shared.histogram import Histogram

__all__ = ["add_sums"]

_KEYS_AT_ONCE = 1000

_FLEET_KEY = ("level", "bucket", "model", "version", "hardware_class", "site")
_FLEET_VALUES = ("requests", "errors", "latency", "score_sum", "score_count")
_DEVICE_KEY = ("device_id", "level", "bucket", "slot", "version")
_DEVICE_VALUES = ("model", "requests", "errors", "latency", "score_sum", "score_count", "cpu_ms", "rss_mb", "anon_mb")

_SAVE_DEVICE = upsert(DeviceRollup.__table__, _DEVICE_KEY, _DEVICE_KEY + _DEVICE_VALUES)  # type: ignore[attr-defined]
_SAVE_FLEET = upsert(FleetRollup.__table__, _FLEET_KEY, _FLEET_KEY + _FLEET_VALUES)  # type: ignore[attr-defined]


def add_sums(connection: Connection, device: Mapping[DeviceKey, Sum], fleet: Mapping[FleetKey, Sum]) -> None:
    """Add these sums to their buckets. The sums are changed: afterwards they are the buckets' new values."""
    for row in _existing(connection, "device_rollup", _DEVICE_KEY, _DEVICE_VALUES, list(device)):
        model, requests, errors, latency, score_sum, score_count, cpu_ms, rss_mb, anon_mb = row[5:]
        device[_device_key(row)].add(
            Sum(model, requests, errors, score_sum, score_count, cpu_ms, rss_mb, anon_mb, Histogram.decode(latency))
        )
    for row in _existing(connection, "fleet_rollup", _FLEET_KEY, _FLEET_VALUES, list(fleet)):
        requests, errors, latency, score_sum, score_count = row[6:]
        fleet[_fleet_key(row)].add(Sum("", requests, errors, score_sum, score_count, latency=Histogram.decode(latency)))
    _SAVE_DEVICE.run(connection, [(*key, *_device_values(part)) for key, part in device.items()])
    _SAVE_FLEET.run(connection, [(*key, *_fleet_values(part)) for key, part in fleet.items()])


def _existing(
    connection: Connection, table: str, key: Sequence[str], values: Sequence[str], wanted: Sequence[tuple[Any, ...]]
) -> Iterator[Any]:
    """The rows that are there already, by primary key."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    one = f"({', '.join([mark] * len(key))})"
    same = " AND ".join(f"t.{name} = k.{name}" for name in key)
    columns = ", ".join(f"t.{name}" for name in (*key, *values))
    for start in range(0, len(wanted), _KEYS_AT_ONCE):
        part = wanted[start : start + _KEYS_AT_ONCE]
        text = (  # names are the constants above; every value is a parameter
            f"WITH k({', '.join(key)}) AS (VALUES {', '.join([one] * len(part))}) "  # noqa: S608
            f"SELECT {columns} FROM k CROSS JOIN {table} AS t WHERE {same}"
        )
        yield from connection.exec_driver_sql(text, tuple(value for each in part for value in each))


def _device_key(row: Any) -> DeviceKey:
    return (row[0], row[1], row[2], row[3], row[4])


def _fleet_key(row: Any) -> FleetKey:
    return (row[0], row[1], row[2], row[3], row[4], row[5])


def _device_values(part: Sum) -> tuple[Any, ...]:
    return (
        part.model,
        part.requests,
        part.errors,
        part.encoded(),
        part.score_sum,
        part.score_count,
        part.cpu_ms,
        part.rss_mb,
        part.anon_mb,
    )


def _fleet_values(part: Sum) -> tuple[Any, ...]:
    return (part.requests, part.errors, part.encoded(), part.score_sum, part.score_count)
