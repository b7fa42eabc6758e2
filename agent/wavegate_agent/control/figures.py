"""What was learnt about the assignment in hand: for the signed report at its end.

Kept in a small file per slot so that a restart in the middle does not forget the golden set's result or the bytes already
fetched. It is for the report only: nothing is decided from it, and losing it loses figures, not safety.
"""

import base64
import contextlib
from pathlib import Path

import msgspec

from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import Bench, GoldenResult

__all__ = ["Figures", "FiguresFile"]


class Figures(msgspec.Struct, kw_only=True):
    """Figures of one assignment. `before`: encoded histogram of the version in charge before the swap, base64."""

    seq: int = 0
    golden: GoldenResult | None = None
    bench: Bench | None = None
    load_ms: float = 0.0
    bytes_fetched: int = 0
    swap_ms: float | None = None
    served: int = 0
    errors: int = 0
    probation_s: float = 0.0
    p99_ms: float | None = None
    self_requests: int = 0
    before: str = ""

    def yardstick(self) -> Histogram:
        """`before`, decoded; empty when it is missing or damaged."""
        try:
            return Histogram.decode(base64.b64decode(self.before)) if self.before else Histogram()
        except ValueError:
            return Histogram()

    def set_yardstick(self, before: Histogram) -> None:
        """Keep the latencies of the version in charge."""
        self.before = base64.b64encode(before.encode()).decode()


class FiguresFile:
    """The evidence of one slot on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now = self._read()

    def of(self, seq: int) -> Figures:
        """The evidence of assignment `seq`, fresh when another one was worked on before."""
        if self._now.seq != seq:
            self._now = Figures(seq=seq)
        return self._now

    def renumber(self, old: int, new: int) -> None:
        """The same version goes on under a newer assignment."""
        if self._now.seq == old:
            self._now.seq = new

    def delete(self) -> None:
        """The model is gone."""
        self._path.unlink(missing_ok=True)

    def save(self) -> None:
        """Write it, not synced. A disk that refuses costs figures, it does not stop an install."""
        beside = self._path.with_name(f".{self._path.name}.new")
        with contextlib.suppress(OSError):
            beside.write_bytes(msgspec.json.encode(self._now))
            beside.replace(self._path)

    def _read(self) -> Figures:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Figures)
        except (OSError, msgspec.DecodeError):
            return Figures()
