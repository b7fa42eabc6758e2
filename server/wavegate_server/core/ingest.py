"""What a batch of device messages amounts to: which are new, which windows are sound, and the sums to add to roll-ups.

Pure. Decoding is the wire's (`wavegate_shared.wire`), writing the stores' (`adapters/store/telemetry`, `adapters/store/rollups`).
A window counts into the bucket its start falls into; histograms are added, percentiles never averaged. Sums are built up
in memory first, so that one batch touches each bucket once.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from wavegate_shared.errors import TrustError
from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import Hello, SignedReport, StateEvent, Window

__all__ = [
    "LEVELS",
    "DeviceKey",
    "FleetKey",
    "Mark",
    "Place",
    "Rollups",
    "SoundWindow",
    "Sum",
    "check_mark",
    "check_window",
    "is_new",
]

LEVELS = (60, 3600, 86400)
"""Lengths of the roll-up buckets in seconds: each divides the next, so a longer bucket is a sum of shorter ones."""
MAX_COUNT = 2**31 - 1
MAX_NUMBER = 2**53
MAX_FIGURE = 1e12
MAX_NAME = 100
MAX_SECONDS = 31 * 86400.0

_Key = TypeVar("_Key")

Mark = tuple[int, int]
"""(boot, seq) of a message; compared in that order."""
DeviceKey = tuple[str, int, int, str, int]
"""Device, level, bucket, slot (named by its model), version: the key of a device roll-up."""
FleetKey = tuple[int, int, str, int, str, str]
"""Level, bucket, model, version, hardware class, site: the key of a fleet roll-up."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device stands in the fleet, by the registry. Attributes: hardware_class, site."""

    hardware_class: str
    site: str


@dataclass(frozen=True, slots=True)
class SoundWindow:
    """A window whose every value can be stored. Attributes: window, start_ms (Unix), histogram."""

    window: Window
    start_ms: int
    histogram: Histogram


def is_new(mark: Mark, watermark: Mark | None) -> bool:
    """Whether a message is above the device's watermark; what is not has been stored before."""
    return watermark is None or mark > watermark


def check_mark(message: Window | StateEvent | SignedReport | Hello) -> None:
    """Refuse numbers that no device counts to. Raises TrustError `message_malformed`."""
    seq = 0 if isinstance(message, Hello) else message.seq
    if message.boot > MAX_NUMBER or seq > MAX_NUMBER:
        raise TrustError("message_malformed", "boot or seq out of range")


def check_window(window: Window) -> SoundWindow:
    """The window, once everything in it can be stored and summed. Raises TrustError `message_malformed`.

    The schema says which fields there are; this says which values: one window that a database refuses must not take a
    whole batch with it.
    """
    if (
        window.requests > MAX_COUNT
        or window.errors > MAX_COUNT
        or window.version > MAX_COUNT
        or window.score_count > MAX_COUNT
        or not abs(window.score_sum) <= MAX_FIGURE
        or not (_figure(window.cpu_ms) and _figure(window.rss_mb) and _figure(window.anon_mb))
        or not (_figure(window.agent_rss_mb) and _figure(window.temperature_c))
    ):
        raise TrustError("message_malformed", "a figure of the window is out of range")
    if not 0 < window.seconds <= MAX_SECONDS or window.start.tzinfo is None:
        raise TrustError("message_malformed", "the window has no length or no time zone")
    if max(len(window.slot), len(window.model)) > MAX_NAME or "\0" in window.slot or "\0" in window.model:
        raise TrustError("message_malformed", "slot or model is not a name")
    try:
        histogram = Histogram.decode(window.latency)
    except ValueError as error:
        raise TrustError("message_malformed", f"latency: {error}") from error
    if histogram.count > MAX_COUNT:
        raise TrustError("message_malformed", "more latencies than anybody can count")
    return SoundWindow(window, math.floor(window.start.timestamp() * 1000), histogram)


@dataclass(slots=True)
class Sum:
    """What one roll-up bucket amounts to. `cpu_ms` is a sum, `rss_mb` and `anon_mb` are maxima."""

    model: str
    requests: int = 0
    errors: int = 0
    score_sum: float = 0.0
    score_count: int = 0
    cpu_ms: float = 0.0
    rss_mb: float | None = None
    anon_mb: float | None = None
    latency: Histogram = field(default_factory=Histogram)
    _encoded: bytes | None = None  # of `latency`, while it is one window's

    def add_window(self, sound: SoundWindow) -> None:
        """Add one window."""
        window = sound.window
        self.requests += window.requests
        self.errors += window.errors
        self.score_sum += window.score_sum
        self.score_count += window.score_count
        self.cpu_ms += window.cpu_ms or 0.0
        self.rss_mb = _larger(self.rss_mb, window.rss_mb)
        self.anon_mb = _larger(self.anon_mb, window.anon_mb)
        self._encoded = None if self.latency else window.latency
        self.latency.merge(sound.histogram)

    def add(self, other: "Sum") -> None:
        """Add another sum of the same model; `a + b == b + a`."""
        self.requests += other.requests
        self.errors += other.errors
        self.score_sum += other.score_sum
        self.score_count += other.score_count
        self.cpu_ms += other.cpu_ms
        self.rss_mb = _larger(self.rss_mb, other.rss_mb)
        self.anon_mb = _larger(self.anon_mb, other.anon_mb)
        self._encoded = None if self.latency else other._encoded
        self.latency.merge(other.latency)

    def encoded(self) -> bytes:
        """The wire form of the latencies."""
        return self.latency.encode() if self._encoded is None else self._encoded


class Rollups:
    """The sums one batch adds to: device and fleet buckets of every level."""

    def __init__(self) -> None:
        self._minutes: dict[DeviceKey, Sum] = {}
        self._places: dict[str, Place] = {}

    def add(self, device: str, place: Place, sound: SoundWindow) -> None:
        """Count one new window of a device."""
        window = sound.window
        second = sound.start_ms // 1000
        level = LEVELS[0]
        key = (device, level, second - second % level, window.model, window.version)
        known = self._minutes.get(key)
        if known is None:
            known = self._minutes[key] = Sum(window.model)
            self._places[device] = place
        known.add_window(sound)

    def device_sums(self) -> dict[DeviceKey, Sum]:
        """What to add to each device roll-up."""
        total = dict(self._minutes)
        below: Iterable[tuple[DeviceKey, Sum]] = self._minutes.items()
        for level in LEVELS[1:]:
            above: dict[DeviceKey, Sum] = {}
            for (device, _, bucket, slot, version), part in below:
                _add_to(above, (device, level, bucket - bucket % level, slot, version), part)
            total.update(above)
            below = above.items()
        return total

    def fleet_sums(self) -> dict[FleetKey, Sum]:
        """What to add to each fleet roll-up."""
        total: dict[FleetKey, Sum] = {}
        below: dict[FleetKey, Sum] = {}
        for key, part in self._fleet_minutes():
            _add_to(below, key, part)
        total.update(below)
        for level in LEVELS[1:]:
            above: dict[FleetKey, Sum] = {}
            for (_, bucket, model, version, hardware_class, site), part in below.items():
                _add_to(above, (level, bucket - bucket % level, model, version, hardware_class, site), part)
            total.update(above)
            below = above
        return total

    def _fleet_minutes(self) -> Iterator[tuple[FleetKey, Sum]]:
        for (device, level, bucket, _, version), part in self._minutes.items():
            place = self._places[device]
            yield (level, bucket, part.model, version, place.hardware_class, place.site), part


def _add_to(sums: dict[_Key, Sum], key: _Key, part: Sum) -> None:
    known = sums.get(key)
    if known is None:
        known = sums[key] = Sum(part.model)
    known.add(part)


def _figure(value: float | None) -> bool:
    return value is None or abs(value) <= MAX_FIGURE


def _larger(left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return right if left is None else left
    return max(left, right)
