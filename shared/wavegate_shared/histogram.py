"""Mergeable latency histogram: fixed logarithmic buckets, 2 % relative error, exact merge.

Both sides use the same mapping, so the server adds up what devices counted and a fleet percentile is exact to the
bucket; percentiles are never averaged. The mapping is that of DDSketch with a fixed gamma: value v > 0 falls into bucket
ceil(log(v) / log(gamma)), gamma = (1 + a) / (1 - a), a = 0.02, and is given back as the bucket's midpoint in the
relative sense, 2 * gamma^i / (gamma + 1).

Values are milliseconds, clamped to [MIN_MS, MAX_MS]. The wire form is a version byte, then varints: number of buckets,
first bucket, then (gap, count) pairs; 60-100 bytes for a typical window.

Source: Masson, Rim, Lee: DDSketch (VLDB 2019), section 2.
"""

import itertools
import math
from collections.abc import Iterable, Sequence

__all__ = ["ALPHA", "MAX_MS", "MIN_MS", "Histogram"]

ALPHA = 0.02
MIN_MS = 0.001
MAX_MS = 3_600_000.0
_GAMMA = (1 + ALPHA) / (1 - ALPHA)
_LOG_GAMMA = math.log(_GAMMA)
_OFFSET = 1 - math.ceil(math.log(MIN_MS) / _LOG_GAMMA)
"""Added to a raw bucket number so that the first bucket is 1 and every number is a plain unsigned varint."""
_VERSION = 1
_MAX_BUCKET = math.ceil(math.log(MAX_MS) / _LOG_GAMMA) + _OFFSET


class Histogram:
    """Counts of latencies by bucket.

    `merge` is commutative and associative; `decode(h.encode()) == h`.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self._counts: dict[int, int] = dict(counts or {})

    def add(self, latency_ms: float, count: int = 1) -> None:
        """Count one latency (or `count` equal ones); NaN is refused with ValueError."""
        if math.isnan(latency_ms):
            raise ValueError("latency is NaN")
        value = min(max(latency_ms, MIN_MS), MAX_MS)
        bucket = math.ceil(math.log(value) / _LOG_GAMMA) + _OFFSET
        self._counts[bucket] = self._counts.get(bucket, 0) + count

    def merge(self, other: "Histogram") -> None:
        """Add all counts of `other` to this one."""
        if not self._counts:
            self._counts = dict(other._counts)
            return
        counts = self._counts
        known = counts.get
        for bucket, count in other._counts.items():
            counts[bucket] = known(bucket, 0) + count

    @classmethod
    def merged(cls, parts: Iterable["Histogram"]) -> "Histogram":
        """A new histogram holding the counts of all parts."""
        total = cls()
        for part in parts:
            total.merge(part)
        return total

    @property
    def count(self) -> int:
        """How many latencies were counted."""
        return sum(self._counts.values())

    def quantile(self, q: float) -> float | None:
        """The q-quantile in ms (0 <= q <= 1) within 2 %, or None when nothing was counted."""
        total = self.count
        if total == 0:
            return None
        rank = q * (total - 1)
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen > rank:
                return _value(bucket)
        raise AssertionError("unreachable: ranks are below the total")

    def share_above(self, limit_ms: float) -> float | None:
        """Share of latencies whose bucket lies above `limit_ms`'s bucket, or None when nothing was counted."""
        total = self.count
        if total == 0:
            return None
        limit = math.ceil(math.log(min(max(limit_ms, MIN_MS), MAX_MS)) / _LOG_GAMMA) + _OFFSET
        return sum(count for bucket, count in self._counts.items() if bucket > limit) / total

    def mean(self) -> float | None:
        """The mean in ms within 2 %, or None when nothing was counted."""
        total = self.count
        return sum(_value(b) * n for b, n in self._counts.items()) / total if total else None

    def buckets(self) -> list[tuple[float, int]]:
        """(value in ms, count) in rising order, for charts."""
        return [(_value(bucket), self._counts[bucket]) for bucket in sorted(self._counts)]

    def encode(self) -> bytes:
        """The wire form."""
        out = bytearray([_VERSION])
        _put(out, len(self._counts))
        last = 0
        for bucket in sorted(self._counts):
            _put(out, bucket - last)
            _put(out, self._counts[bucket])
            last = bucket
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> "Histogram":
        """Read the wire form. Raises ValueError on anything that `encode` cannot have written."""
        if not data or data[0] != _VERSION:
            raise ValueError("unknown histogram version")
        size, at = _get(data, 1)
        if size == 0:
            if at != len(data):
                raise ValueError("trailing bytes after the histogram")
            return cls()
        first, at = _get(data, at)
        count, at = _get(data, at)
        rest: Sequence[int] = data[at:]
        if not data[at:].isascii():  # ascii: every number is one byte, the usual case
            rest = _get_all(data, at)
        gaps = rest[0::2]
        if len(rest) != 2 * (size - 1):
            raise ValueError("not as many buckets as the histogram says")
        if first == 0 or count == 0 or 0 in rest or first + sum(gaps) > _MAX_BUCKET:
            raise ValueError("histogram out of order or out of range")
        made = cls.__new__(cls)
        made._counts = dict(zip(itertools.accumulate(gaps, initial=first), (count, *rest[1::2]), strict=True))
        return made

    def __bool__(self) -> bool:
        """Whether anything was counted."""
        return bool(self._counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._counts == other._counts

    def __hash__(self) -> int:
        raise TypeError("a histogram changes; it cannot be a key")

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, p50={self.quantile(0.5)}, p99={self.quantile(0.99)})"


def _value(bucket: int) -> float:
    return 2 * math.exp((bucket - _OFFSET) * _LOG_GAMMA) / (_GAMMA + 1)


def _put(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _get_all(data: bytes, at: int) -> list[int]:
    numbers = []
    while at < len(data):
        number, at = _get(data, at)
        numbers.append(number)
    return numbers


def _get(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("histogram ends in the middle of a number")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
