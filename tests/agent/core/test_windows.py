"""Windows: totals survive merging, order stays, versions are never mixed."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.windows import coarser, merged, window_of
from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import Window

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def window(seq: int, *, boot: int = 1, version: int = 1, requests: int = 10) -> Window:
    latency = Histogram()
    latency.add(float(seq), requests)
    stats = LiveStats(version, "m", requests, 1, latency, 0.5, 1, 20.0, 50.0, 40.0)
    return window_of(stats, boot=boot, seq=seq, slot="main", start=T0 + timedelta(minutes=seq), seconds=60.0)


def test_a_window_has_what_was_counted() -> None:
    made = window(3)
    assert (made.requests, made.errors, made.version, made.score_sum, made.rss_mb) == (10, 1, 1, 0.5, 50.0)
    assert Histogram.decode(made.latency).count == 10


def test_merging_adds_and_keeps_the_later_number() -> None:
    both = merged(window(1), window(2, requests=5))
    assert (both.seq, both.start, both.seconds, both.requests, both.errors) == (
        2,
        T0 + timedelta(minutes=1),
        120.0,
        15,
        2,
    )
    assert both.cpu_ms == 40.0
    assert Histogram.decode(both.latency).count == 15


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 50)), max_size=40))
def test_coarser_keeps_totals_order_and_versions(items: list[tuple[int, int, int]]) -> None:
    windows = sorted(
        (window(seq, boot=boot, version=version, requests=n) for seq, (boot, version, n) in enumerate(items, 1)),
        key=lambda w: (w.boot, w.seq),
    )
    made = coarser(windows)
    assert [(w.boot, w.seq) for w in made] == sorted((w.boot, w.seq) for w in made)
    for version in (1, 2, 3):
        assert sum(w.requests for w in made if w.version == version) == sum(
            w.requests for w in windows if w.version == version
        )
    assert len(made) <= len(windows) // 2 + 6
