"""Counts of one worker."""

import threading

from wavegate_agent.adapters.serving.live_counts import LiveCounts


def test_nothing_is_told_before_it_serves() -> None:
    assert LiveCounts("m", 1).take() == []


def test_every_event_is_in_exactly_one_collection() -> None:
    counts = LiveCounts("m", 2)
    counts.start()
    taken = []

    def count() -> None:
        for _ in range(500):
            counts.count(1.0, failed=False)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += counts.take()
    taken += counts.take()
    assert sum(one.requests for one in taken) == 2000


def test_scores_belong_to_the_version_that_answered() -> None:
    counts = LiveCounts("m", 2)
    counts.start()
    counts.add_score(1, 1.0)
    counts.add_score(2, 0.0)
    assert {one.version: (one.score_sum, one.score_count) for one in counts.take()} == {1: (1.0, 1), 2: (0.0, 1)}


def test_memory_and_cpu_are_those_of_the_worker() -> None:
    counts = LiveCounts("m", 2)
    counts.start()
    counts.start()
    (own,) = counts.take()
    assert own.rss_mb is not None
    assert own.rss_mb > 10
    assert own.cpu_ms >= 0


def test_cpu_time_of_the_agents_own_requests_is_left_out() -> None:
    counts = LiveCounts("m", 2)
    counts.start()
    counts.discount(1e6)
    assert counts.take()[0].cpu_ms == 0.0
