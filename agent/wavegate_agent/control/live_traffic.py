"""What one slot serves, added up twice: for telemetry windows and for the probation of a new version.

Workers give counts since they were last asked, so there is one asker (`sample`) and everything else reads from here. Several
threads call; nothing blocks for long. Not here: the judgement (`core/probation.py`), the window's form (`core/windows.py`).
"""

import threading
import time
from collections.abc import Callable

from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.probation import OwnCounts, Verdict, judge_with_own
from wavegate_shared.assignment import Probation
from wavegate_shared.histogram import Histogram

__all__ = ["LiveTraffic", "Trial"]

_GENERATION = 10_000
"""Requests after which the yardstick starts a new half, so that it follows the device's life."""


class Trial:
    """The probation of one version: its live counts since the swap, the agent's own requests, and the latencies before it."""

    def __init__(self, version: int, before: Histogram) -> None:
        self.version = version
        self.before = before
        self.started = time.monotonic()
        self.counts = LiveStats(version)
        self.own = OwnCounts()

    @property
    def seconds(self) -> float:
        """Time since the swap."""
        return time.monotonic() - self.started

    def verdict(self, rule: Probation) -> Verdict:
        """The word on the version so far."""
        return judge_with_own(rule, self.seconds, self.counts, self.own, self.before)


class LiveTraffic:
    """Counts of one slot.

    Args:
        collect: counts of the workers since the last call, by version.
    """

    def __init__(self, collect: Callable[[], list[LiveStats]]) -> None:
        self._collect = collect
        self._lock = threading.Lock()
        self._window: dict[tuple[str, int], LiveStats] = {}
        self._yardstick: dict[int, list[Histogram]] = {}
        self.trial: Trial | None = None

    def sample(self) -> None:
        """Take over what the workers counted since the last call."""
        with self._lock:
            for stats in self._collect():
                self._add(stats)

    def window(self) -> list[LiveStats]:
        """Everything since the last call of this, by version; versions that served nothing but still live included."""
        self.sample()
        with self._lock:
            counts, self._window = self._window, {}
        return [stats for stats in counts.values() if stats.requests or stats.score_count or stats.rss_mb is not None]

    def before(self, version: int) -> Histogram:
        """Latencies of the version in charge, the yardstick of its successor."""
        with self._lock:
            return Histogram.merged(self._yardstick.get(version, []))

    def begin(self, version: int, before: Histogram) -> None:
        """The version went live: judge it from now on."""
        self.sample()
        with self._lock:
            self.trial = Trial(version, before)

    def end(self) -> Trial | None:
        """Probation is over; its last figures."""
        self.sample()
        with self._lock:
            trial, self.trial = self.trial, None
            if trial is not None:
                self._yardstick = {trial.version: self._yardstick.get(trial.version, [])}
            return trial

    def _add(self, stats: LiveStats) -> None:
        window = self._window.setdefault((stats.model, stats.version), LiveStats(stats.version, stats.model))
        window.merge(stats)
        if self.trial is not None and self.trial.version == stats.version:
            self.trial.counts.merge(stats)
        halves = self._yardstick.setdefault(stats.version, [])
        if not halves or halves[-1].count >= _GENERATION:
            halves.append(Histogram())
        halves[-1].merge(stats.latency)
        del halves[:-2]
