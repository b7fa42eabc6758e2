"""What paired timings say."""

import pytest

from wavegate_agent.core.bench_pairs import Pair, Timing, quantile, summarise


def test_ratios_are_medians_over_pairs() -> None:
    pairs = [
        Pair(Timing(20, 2), Timing(10, 4)),
        Pair(Timing(30, 3), Timing(10, 4)),
        Pair(Timing(900, 90), Timing(10, 4)),
    ]
    bench = summarise(pairs, skipped=1, load_ms=5.0, rss_mb=1.0, anon_mb=None)
    assert (bench.cpu_ratio, bench.wall_ratio, bench.active_p50_ms) == (0.75, 3.0, 10)
    assert (bench.runs, bench.contention, bench.cpu_ms, bench.p50_ms) == (3, 0.25, 3, 30)


def test_without_a_live_version_there_is_no_ratio() -> None:
    bench = summarise([Pair(Timing(2, 1))], skipped=0, load_ms=5.0, rss_mb=None, anon_mb=None)
    assert (bench.cpu_ratio, bench.active_p50_ms, bench.contention) == (None, None, 0.0)


def test_a_pair_whose_live_run_took_no_measurable_time_gives_no_ratio() -> None:
    assert (
        summarise([Pair(Timing(2, 1), Timing(0, 0))], skipped=0, load_ms=0, rss_mb=None, anon_mb=None).cpu_ratio is None
    )


@pytest.mark.parametrize(("q", "value"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0)])
def test_quantiles_lie_between_neighbours(q: float, value: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], q) == value
