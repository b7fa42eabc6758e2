"""The worker's counts between two collections, safe for its loop and pool threads."""

import threading
import time

from wavegate_agent.adapters.device.process_memory import process_memory
from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.worker_messages import VersionCounts, to_counts

__all__ = ["LiveCounts"]


class LiveCounts:
    """Counts by version; `take` hands them out and starts again, so every event is in exactly one collection."""

    def __init__(self, model: str, version: int) -> None:
        self._lock = threading.Lock()
        self._model = model
        self._version = version
        self._stats: dict[int, LiveStats] = {}
        self._cpu_from = time.process_time()
        self._serving = False

    def start(self) -> None:
        """Serving begins; CPU time used for loading and tests is not counted. Later calls do nothing."""
        if not self._serving:
            self._serving = True
            self._cpu_from = time.process_time()

    def count(self, latency_ms: float, *, failed: bool) -> None:
        """Count one answered request of this worker's version."""
        with self._lock:
            self._of(self._version).count(latency_ms, failed=failed)

    def discount(self, cpu_ms: float) -> None:
        """Leave out CPU time that served no application."""
        with self._lock:
            self._cpu_from += cpu_ms / 1000

    def add_score(self, version: int, score: float) -> None:
        """Count one labelled sample for the version that answered it."""
        with self._lock:
            self._of(version).add_score(score)

    def take(self) -> list[VersionCounts]:
        """Everything since the last call, this worker's own version always among it once it has served."""
        if not self._serving:
            return []
        now = time.process_time()
        memory = process_memory()
        with self._lock:
            own = self._of(self._version)
            own.cpu_ms, self._cpu_from = max(0.0, (now - self._cpu_from) * 1000), now
            own.rss_mb, own.anon_mb = memory.rss_mb, memory.anon_mb
            taken, self._stats = self._stats, {}
        return [to_counts(stats) for stats in taken.values()]

    def _of(self, version: int) -> LiveStats:
        return self._stats.setdefault(version, LiveStats(version=version, model=self._model))
