"""Telemetry windows: made from a worker's counts, and merged into coarser ones while a device is offline.

Merging adds counts and histograms, so no percentile gets worse by it; only the time resolution is given up.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from wavegate_agent.core.live_stats import LiveStats
from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import Window

__all__ = ["coarser", "merged", "window_of"]


def window_of(stats: LiveStats, *, boot: int, seq: int, slot: str, start: datetime, seconds: float) -> Window:
    """One version's counts as a message."""
    return Window(
        boot=boot,
        seq=seq,
        slot=slot,
        model=stats.model,
        version=stats.version,
        start=start,
        seconds=round(seconds, 3),
        requests=stats.requests,
        errors=stats.errors,
        latency=stats.latency.encode(),
        score_sum=stats.score_sum,
        score_count=stats.score_count,
        cpu_ms=round(stats.cpu_ms, 1),
        rss_mb=stats.rss_mb,
        anon_mb=stats.anon_mb,
    )


def merged(first: Window, second: Window) -> Window:
    """Both windows as one, under the later one's (boot, seq) and with its memory figures."""
    latency = Histogram.merged([Histogram.decode(first.latency), Histogram.decode(second.latency)])
    cpu = None if first.cpu_ms is None or second.cpu_ms is None else first.cpu_ms + second.cpu_ms
    return msgspec.structs.replace(
        second,
        start=first.start,
        seconds=first.seconds + second.seconds,
        requests=first.requests + second.requests,
        errors=first.errors + second.errors,
        latency=latency.encode(),
        score_sum=first.score_sum + second.score_sum,
        score_count=first.score_count + second.score_count,
        cpu_ms=cpu,
    )


def coarser(windows: Sequence[Window]) -> list[Window]:
    """The windows, in (boot, seq) order, with neighbours of the same start, slot and version merged pairwise.

    Totals stay; the answer is about half as long and still in (boot, seq) order.
    """
    waiting: dict[tuple[int, str, str, int], Window] = {}
    done: list[Window] = []
    for window in windows:
        key = (window.boot, window.slot, window.model, window.version)
        before = waiting.pop(key, None)
        if before is None:
            waiting[key] = window
        else:
            done.append(merged(before, window))
    return sorted([*done, *waiting.values()], key=lambda window: (window.boot, window.seq))
