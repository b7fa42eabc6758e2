"""Counts of live requests."""

import math

from wavegate_agent.core.live_stats import LiveStats


def test_merging_two_collections_counts_everything_once() -> None:
    first, second = LiveStats(version=3, model="m"), LiveStats(version=3, model="m", rss_mb=70.0, cpu_ms=2.0)
    first.count(5.0, failed=False)
    second.count(7.0, failed=True)
    second.add_score(1.0)
    first.merge(second)
    assert (first.requests, first.errors, first.latency.count) == (2, 1, 2)
    assert (first.score_sum, first.score_count, first.cpu_ms, first.rss_mb) == (1.0, 1, 2.0, 70.0)


def test_memory_stays_when_the_later_collection_has_none() -> None:
    first = LiveStats(version=1, rss_mb=60.0, anon_mb=20.0)
    first.merge(LiveStats(version=1))
    assert (first.rss_mb, first.anon_mb) == (60.0, 20.0)


def test_an_infinite_score_is_an_error_and_does_not_drown_the_sum() -> None:
    stats = LiveStats(version=1)
    stats.add_score(0.25)
    stats.add_score(math.inf)
    assert (stats.score_sum, stats.score_count, stats.errors) == (0.25, 1, 1)
