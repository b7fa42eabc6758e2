"""What the gate sees: per-device telemetry on a grid of blocks, reduced to paired differences-in-differences.

A device is compared with itself before the wave began, and the change is compared with the same change on devices that were not
touched. That takes out what is particular to a device (a camera in the sun) and what happened to all of them (night, a slow
network). Reading the tables is `adapters/store/gate_evidence`; judging is `decision`.

Source: docs/adr/0005-gate-by-confidence-sequence.md.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from wavegate_server.core.sentences import metric_label
from wavegate_shared.histogram import Histogram
from wavegate_shared.metrics import Direction, Metric

__all__ = [
    "ERRORS",
    "P99",
    "Block",
    "Cell",
    "DeviceBlocks",
    "Live",
    "MetricEvidence",
    "MetricSpec",
    "Shift",
    "Telemetry",
    "Track",
    "compare",
    "metric_specs",
    "reduce_blocks",
]

P99 = "p99"
ERRORS = "errors"
_MIN_P99_SAMPLES = 50
"""Below this many baseline requests a device has no p99 worth the name."""


class Cell(NamedTuple):
    """One block of one device for one metric: sum of scores and number of samples."""

    total: float
    samples: int


@dataclass(frozen=True, slots=True)
class Track:
    """One metric of one device: block number -> cell, before the wave and after the swap (controls: after the wave began)."""

    device: str
    before: Mapping[int, Cell]
    after: Mapping[int, Cell]


class MetricSpec(msgspec.Struct, frozen=True):
    """How one metric is judged. Attributes: name, label (for sentences), unit, direction, margin (in the unit)."""

    name: str
    label: str
    unit: str
    direction: Direction
    margin: float


class Shift(msgspec.Struct, frozen=True):
    """What one updated device shows: mean before, mean after, samples after."""

    device: str
    before: float
    after: float
    samples: int


class MetricEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's input for one metric. Differences are losses: positive is worse, whatever the metric's direction.

    Attributes:
        measured: whether any device of the comparison ever measured it.
        controls: untouched devices compared with; 0: against the own baseline only.
        baseline: difference per baseline block, around 0.
        blocks: difference per block after the swap, baseline subtracted.
        floor: least variance of a block that sampling alone explains (shares only), so that a baseline without a
            single error is not taken for certainty.
        shifts: one per updated device that can be compared.
    """

    spec: MetricSpec
    measured: bool
    controls: int
    baseline: list[float]
    blocks: list[float]
    floor: float
    shifts: list[Shift]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What the updated devices served with the new version since their swap, all together."""

    requests: int = 0
    errors: int = 0
    p95_ms: float | None = None
    peak_memory_mb: float | None = None


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """The whole soft evidence of one wave at one time. `updated`: devices that serve the new version in this wave.

    `live_devices`: those of them that served live requests with it; None in rows of older releases. A device's own requests are in
    no telemetry, so they are no evidence of live quality here or anywhere in the gate.
    """

    updated: int
    metrics: list[MetricEvidence]
    live: Live
    live_devices: int | None = None

    @property
    def idle(self) -> int:
        """Devices that serve the new version and had no live traffic."""
        return 0 if self.live_devices is None else self.updated - self.live_devices


@dataclass(slots=True)
class Block:
    """What one device served in one block."""

    requests: int = 0
    errors: int = 0
    score_sum: float = 0.0
    score_count: int = 0
    latency: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class DeviceBlocks:
    """One device's blocks by number, before the wave and after the swap, and its peak memory after it.

    `live_requests`: that it served with the new version by its own word, which is here before the telemetry of the same time.
    """

    device: str
    before: dict[int, Block] = field(default_factory=dict)
    after: dict[int, Block] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    live_requests: int = 0


def metric_specs(metric: Metric, margins: Mapping[str, float]) -> list[MetricSpec]:
    """The three metrics a wave is judged by: the bundle's own score, p99 and errors. KeyError when one has no margin."""
    return [
        MetricSpec(metric.name, metric_label(metric.name), metric.unit, metric.direction, margins[metric.name]),
        MetricSpec(P99, metric_label(P99), "share", Direction.DOWN, margins[P99]),
        MetricSpec(ERRORS, metric_label(ERRORS), "share", Direction.DOWN, margins[ERRORS]),
    ]


def reduce_blocks(
    specs: Sequence[MetricSpec], updated: Sequence[DeviceBlocks], controls: Sequence[DeviceBlocks]
) -> Telemetry:
    """Telemetry blocks to gate input. Devices without data simply do not count."""
    metrics = [
        compare(spec, [_track(spec.name, d) for d in updated], [_track(spec.name, d) for d in controls])
        for spec in specs
    ]
    served = sum(
        device.live_requests > 0 or any(block.requests for block in device.after.values()) for device in updated
    )
    return Telemetry(updated=len(updated), metrics=metrics, live=_live(updated), live_devices=served)


def compare(spec: MetricSpec, updated: Sequence[Track], controls: Sequence[Track]) -> MetricEvidence:
    """The paired difference-in-differences of one metric.

    Each device's mean before is subtracted from its block means; a block's value is the mean over devices that have it. A
    block counts where both sides have data; without any usable control, the updated devices alone count.
    """
    usable = [track for track in updated if track.before and track.after]
    others = [track for track in controls if track.before and track.after]
    means = {track.device: _mean(track.before.values()) for track in (*usable, *others)}
    sign = 1.0 if spec.direction is Direction.DOWN else -1.0
    shifts = [
        Shift(t.device, means[t.device], _mean(t.after.values()), sum(c.samples for c in t.after.values()))
        for t in sorted(usable, key=lambda track: track.device)
    ]
    return MetricEvidence(
        spec=spec,
        measured=any(track.before or track.after for track in (*updated, *controls)),
        controls=len(others),
        baseline=_differences(usable, others, means, sign, lambda track: track.before),
        blocks=_differences(usable, others, means, sign, lambda track: track.after),
        floor=(_floor(usable) + _floor(others)) if spec.unit == "share" else 0.0,
        shifts=shifts,
    )


def _differences(
    updated: Sequence[Track],
    controls: Sequence[Track],
    means: Mapping[str, float],
    sign: float,
    phase: Callable[[Track], Mapping[int, Cell]],
) -> list[float]:
    mine = _by_block(updated, means, phase)
    theirs = _by_block(controls, means, phase)
    if not controls:
        return [sign * mine[number] for number in sorted(mine)]
    return [sign * (mine[number] - theirs[number]) for number in sorted(mine) if number in theirs]


def _by_block(
    tracks: Sequence[Track], means: Mapping[str, float], phase: Callable[[Track], Mapping[int, Cell]]
) -> dict[int, float]:
    values: defaultdict[int, list[float]] = defaultdict(list)
    for track in tracks:
        for number, cell in phase(track).items():
            values[number].append(cell.total / cell.samples - means[track.device])
    return {number: math.fsum(found) / len(found) for number, found in values.items()}


def _mean(cells: Collection[Cell]) -> float:
    return math.fsum(cell.total for cell in cells) / sum(cell.samples for cell in cells)


def _floor(tracks: Sequence[Track]) -> float:
    cells = [cell for track in tracks for cell in track.before.values()]
    if not cells:
        return 0.0
    count = sum(cell.samples for cell in cells)
    share = min(1.0, max(0.0, (math.fsum(cell.total for cell in cells) + 1.0) / (count + 2.0)))
    return share * (1.0 - share) * len(cells) / count / len(tracks)


def _track(name: str, device: DeviceBlocks) -> Track:
    if name == P99:
        limit = _own_p99(device)
        return Track(device.device, {}, {}) if limit is None else _build(device, lambda block: _slow(block, limit))
    if name == ERRORS:
        return _build(device, lambda block: Cell(float(block.errors), block.requests))
    return _build(device, lambda block: Cell(block.score_sum, block.score_count))


def _build(device: DeviceBlocks, cell: Callable[[Block], Cell]) -> Track:
    before = {number: cell(block) for number, block in device.before.items()}
    after = {number: cell(block) for number, block in device.after.items()}
    return Track(
        device.device,
        {number: found for number, found in before.items() if found.samples},
        {number: found for number, found in after.items() if found.samples},
    )


def _own_p99(device: DeviceBlocks) -> float | None:
    whole = Histogram.merged(block.latency for block in device.before.values())
    return whole.quantile(0.99) if whole.count >= _MIN_P99_SAMPLES else None


def _slow(block: Block, limit_ms: float) -> Cell:
    count = block.latency.count
    return Cell((block.latency.share_above(limit_ms) or 0.0) * count, count)


def _live(updated: Sequence[DeviceBlocks]) -> Live:
    blocks = [block for device in updated for block in device.after.values()]
    memory = [device.peak_memory_mb for device in updated if device.peak_memory_mb is not None]
    return Live(
        requests=sum(block.requests for block in blocks),
        errors=sum(block.errors for block in blocks),
        p95_ms=Histogram.merged(block.latency for block in blocks).quantile(0.95),
        peak_memory_mb=max(memory, default=None),
    )
