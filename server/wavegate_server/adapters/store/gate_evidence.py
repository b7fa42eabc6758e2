"""Evidence from telemetry: the windows of a rollout's devices, sorted into the gate's blocks.

Blocks lie on a fixed grid of Unix time, so that all devices share them. Before: the policy's number of blocks ending with the
wave's start, served with each device's previous version. After: complete blocks since a device's swap, served with the new
version (controls: since the wave's start, with the version they run). Only the columns and the range that are needed are read;
large fleets are sampled, and what lies before the wave is read once per wave.

Grid blocks of whole minutes are read from the one-minute roll-ups, shorter ones (demo, tests) from the raw windows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlmodel import Session, col

from wavegate_server.adapters.database.tables import DeviceRollup, TelemetryWindow, Version
from wavegate_server.core.gate.evidence import Block, DeviceBlocks, Telemetry, metric_specs, reduce_blocks
from wavegate_server.core.rollout.due import complete_until
from wavegate_server.core.rollout.gate_inputs import left
from wavegate_server.core.rollout.plan import DeviceView, RolloutView
from wavegate_server.core.rollout.waves import draw
from wavegate_shared.histogram import Histogram
from wavegate_shared.manifest import decode_manifest
from wavegate_shared.states import AssignmentState

__all__ = ["EvidenceStore"]

_SAMPLE = 200
"""At most this many updated devices and as many controls are compared; more would add cost, hardly certainty."""
_MINUTE = 60
_BATCH = 400


@dataclass(frozen=True, slots=True)
class _Span:
    """What to read of one group: blocks start .. end (exclusive) and, per device, the version and the earliest time."""

    start: int
    end: int
    version: dict[str, int]
    since: dict[str, float]


class EvidenceStore:
    """Makes `Telemetry` for the current wave. Keeps the blocks from before the wave, which do not change any more."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, int], dict[str, dict[int, Block]]] = {}

    def telemetry(self, session: Session, view: RolloutView, now: datetime) -> Telemetry | None:
        """The evidence of the current wave by now; None before the wave has begun."""
        wave = view.waves[view.wave]
        if wave.started_at is None:
            return None
        block_s = view.policy.block_s
        start = int(wave.started_at.timestamp() // block_s)
        end = complete_until(view, now)
        updated = _sample(view, [d for d in view.members(view.wave) if d.swapped_at is not None and not left(d)])
        controls = _sample(view, [d for d in view.devices if d.state is AssignmentState.SCHEDULED and not left(d)])
        old = {d.device: d.previous_version for d in (*updated, *controls) if d.previous_version}
        before = self._blocks_before(session, view, old, start)
        fresh = {d.device: d.swapped_at.timestamp() for d in updated if d.swapped_at is not None}
        after, memory = _read(session, view, _Span(start, end, dict.fromkeys(fresh, view.version), fresh))
        still = {d.device: d.previous_version for d in controls if d.previous_version}
        beside, _ = _read(session, view, _Span(start + 1, end, still, {}))
        metric = decode_manifest(_manifest(session, view)).metric
        return reduce_blocks(
            metric_specs(metric, view.policy.margins),
            [
                DeviceBlocks(
                    d.device,
                    before.get(d.device, {}),
                    after.get(d.device, {}),
                    memory.get(d.device),
                    d.live_requests or 0,
                )
                for d in updated
            ],
            [DeviceBlocks(d.device, before.get(d.device, {}), beside.get(d.device, {})) for d in controls],
        )

    def forget(self, keep: Sequence[str]) -> None:
        """Drop what is kept of rollouts that are not in `keep`."""
        for key in [key for key in self._before if key[0] not in keep]:
            del self._before[key]

    def _blocks_before(
        self, session: Session, view: RolloutView, versions: dict[str, int], start: int
    ) -> dict[str, dict[int, Block]]:
        kept = self._before.setdefault((view.id, view.wave), {})
        missing = {device: version for device, version in versions.items() if device not in kept}
        if missing:
            found, _ = _read(session, view, _Span(start - view.policy.baseline_blocks, start, missing, {}))
            kept.update({device: found.get(device, {}) for device in missing})
        return kept


def _manifest(session: Session, view: RolloutView) -> bytes:
    query = select(col(Version.manifest)).where(col(Version.model) == view.model, col(Version.number) == view.version)
    return bytes(session.execute(query).scalar_one())


def _sample(view: RolloutView, devices: list[DeviceView]) -> list[DeviceView]:
    if len(devices) <= _SAMPLE:
        return devices
    return sorted(devices, key=lambda device: draw(f"{view.id}/evidence", device.device))[:_SAMPLE]


def _read(session: Session, view: RolloutView, span: _Span) -> tuple[dict[str, dict[int, Block]], dict[str, float]]:
    blocks: dict[str, dict[int, Block]] = {}
    memory: dict[str, float] = {}
    if span.end <= span.start or not span.version:
        return blocks, memory
    block_s = view.policy.block_s
    for row in _rows(session, view, span):
        at = row.at
        if row.version != span.version[row.device_id] or at < span.since.get(row.device_id, 0.0):
            continue
        block = blocks.setdefault(row.device_id, {}).setdefault(int(at // block_s), Block())
        block.requests += row.requests
        block.errors += row.errors
        block.score_sum += row.score_sum
        block.score_count += row.score_count
        block.latency.merge(_histogram(row.latency))
        if row.rss_mb is not None:
            memory[row.device_id] = max(memory.get(row.device_id, 0.0), row.rss_mb)
    return blocks, memory


def _rows(session: Session, view: RolloutView, span: _Span) -> Iterator[Row[Any]]:
    block_s = view.policy.block_s
    minutes = block_s % _MINUTE == 0
    table: Any = DeviceRollup if minutes else TelemetryWindow
    at = col(DeviceRollup.bucket) if minutes else (col(TelemetryWindow.start) / 1000.0)
    moment = col(table.bucket) if minutes else col(table.start)
    scale = 1 if minutes else 1000
    devices = list(span.version)
    for first in range(0, len(devices), _BATCH):
        query = select(
            table.device_id,
            table.version,
            at.label("at"),
            table.requests,
            table.errors,
            table.score_sum,
            table.score_count,
            table.latency,
            table.rss_mb,
        ).where(
            table.device_id.in_(devices[first : first + _BATCH]),
            table.model == view.model,
            table.version.in_(sorted(set(span.version.values()))),
            moment >= int(span.start * block_s * scale),
            moment < int(span.end * block_s * scale),
        )
        if minutes:
            query = query.where(table.level == _MINUTE)
        yield from session.execute(query)


def _histogram(data: bytes) -> Histogram:
    try:
        return Histogram.decode(data)
    except ValueError:  # one damaged window must not stop the gate; its latencies are missing, and that can only hold
        return Histogram()
