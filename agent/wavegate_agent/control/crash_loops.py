"""Tells a version whose worker crashes now and then, which is started again, from one that crashes in a loop."""

import logging
from collections import defaultdict, deque
from collections.abc import Sequence

from wavegate_agent.control.ports import Exit

__all__ = ["CrashLoops"]

_LOG = logging.getLogger(__name__)


class CrashLoops:
    """Counts the crashes of each model's live worker.

    Args:
        device: its id, for the log.
        limit: so many crashes of a live worker within `within_s` are a loop.
        within_s: seconds.
    """

    def __init__(self, device: str, limit: int, within_s: float) -> None:
        self._device, self._limit, self._within_s = device, limit, within_s
        self._recent: dict[str, deque[float]] = defaultdict(deque)

    def look(self, model: str, exits: Sequence[Exit], now_s: float) -> str:
        """Note the workers that ended by themselves; a sentence when that makes a loop, else empty. `now_s`: monotonic."""
        recent = self._recent[model]
        for ended in exits:
            _LOG.warning(
                "worker_ended device=%s slot=%s role=%s version=%s how=%s",
                self._device,
                model,
                ended.role,
                ended.version,
                ended.detail,
            )
            if ended.role == "live":
                recent.append(now_s)
        while recent and now_s - recent[0] > self._within_s:
            recent.popleft()
        if len(recent) < self._limit:
            return ""
        recent.clear()
        return f"{self._limit} crashes within {self._within_s:g} s"

    def forget(self, model: str) -> None:
        """The model is gone from the device."""
        self._recent.pop(model, None)
