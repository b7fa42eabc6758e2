"""The live part of a page, rendered once for all who look at the same thing.

Every open tab asks again with each tick; the answer depends on what is shown and on the revision, not on who asks. An entry
ages out after `KEEP_S`, because "12 s ago" moves on without a new revision.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ["KEEP_S", "PartCache"]

KEEP_S = 4.0
_MOST = 64


class PartCache:
    """Texts by (what is shown, revision); the least recently used goes first. Safe across threads."""

    def __init__(self, *, keep_s: float = KEEP_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[Hashable, int], tuple[float, str]] = OrderedDict()

    def get(self, shown: Hashable, revision: int, make: Callable[[], str]) -> str:
        """The text for `shown` at `revision`; `make` is called when there is none. Two at once may both make it."""
        key, now = (shown, revision), self._clock()
        with self._lock:
            found = self._entries.get(key)
            if found is not None and now - found[0] < self._keep_s:
                self._entries.move_to_end(key)
                return found[1]
        text = make()
        with self._lock:
            self._entries[key] = (now, text)
            self._entries.move_to_end(key)
            while len(self._entries) > _MOST:
                self._entries.popitem(last=False)
        return text
