"""Which chunks to ask for next: a window, and a stall timer that follows the measured pace.

Pure: the caller brings the time and does the asking. A chunk is asked for at most once while it may still arrive; when
nothing came for 3 x the expected time between chunks (at least `MIN_STALL_S`), what is outstanding counts as lost and is
asked for again. A fixed timer is wrong on one network or the other: too short floods a slow link with repeats, too long
idles a fast one.
"""

from collections import deque
from collections.abc import Iterable

from wavegate_shared.errors import TransferError

__all__ = ["MAX_STALLS", "MIN_STALL_S", "WINDOW", "FetchPlan"]

WINDOW = 8
MIN_STALL_S = 1.0
MAX_STALL_S = 30.0
MAX_STALLS = 5
"""Stalls in a row before the transfer is given up and tried again later, with back-off."""
_SMOOTHING = 0.2


class FetchPlan:
    """The chunks of one artifact still to fetch.

    Args:
        missing: chunk numbers, in the order they are wanted.
        now: monotonic seconds.
        window: how many may be under way at once.
    """

    def __init__(self, missing: Iterable[int], now: float, window: int = WINDOW) -> None:
        self._waiting = deque(missing)
        self._wanted = set(self._waiting)
        self._asked: set[int] = set()
        self._window = window
        self._pace_s: float | None = None
        self._last = now
        self.stalls = 0
        self.repeats = 0

    @property
    def done(self) -> bool:
        """Whether every chunk has arrived."""
        return not self._wanted

    @property
    def left(self) -> int:
        """Chunks still to arrive."""
        return len(self._wanted)

    def __contains__(self, index: int) -> bool:
        return index in self._wanted

    @property
    def deadline(self) -> float:
        """When silence becomes a stall."""
        pace = MIN_STALL_S if self._pace_s is None else 3 * self._pace_s
        return self._last + min(MAX_STALL_S, max(MIN_STALL_S, pace) * 2.0**self.stalls)

    def ask(self, now: float) -> list[int]:
        """The chunks to request now, possibly none; refilled in half windows to save messages.

        Raises:
            TransferError: `transfer_stalled` after `MAX_STALLS` stalls in a row.
        """
        if self._asked and now >= self.deadline:
            self._stalled(now)
        if len(self._asked) > self._window // 2:
            return []
        indexes = [self._waiting.popleft() for _ in range(min(self._window - len(self._asked), len(self._waiting)))]
        if indexes and not self._asked:
            self._last = now
        self._asked.update(indexes)
        return indexes

    def arrived(self, index: int, now: float) -> bool:
        """A verified chunk came in; False when nobody waits for it (a repeat)."""
        if index not in self._wanted:
            return False
        gap = now - self._last
        self._pace_s = gap if self._pace_s is None else self._pace_s + _SMOOTHING * (gap - self._pace_s)
        self._last = now
        self.stalls = 0
        self._wanted.discard(index)
        self._asked.discard(index)
        if index in self._waiting:
            self._waiting.remove(index)
        return True

    def damaged(self, index: int) -> None:
        """A chunk came in damaged: ask again."""
        if index in self._asked:
            self._asked.discard(index)
            self._waiting.append(index)
            self.repeats += 1

    def _stalled(self, now: float) -> None:
        self.stalls += 1
        if self.stalls > MAX_STALLS:
            raise TransferError("transfer_stalled", f"nothing arrived {self.stalls} times, {self.left} chunks missing")
        self.repeats += len(self._asked)
        self._waiting.extendleft(sorted(self._asked, reverse=True))
        self._asked.clear()
        self._last = now
