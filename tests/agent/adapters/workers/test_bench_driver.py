"""A benchmark beside live traffic, on real workers."""

from pathlib import Path

from tests.support.models import linear_version
from tests.support.serving import Clients, kill, running_host


def test_a_slower_candidate_shows_as_a_ratio(tmp_path: Path) -> None:
    with running_host(tmp_path, bench_runs=6) as host:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2, hidden=512, layers=12))
        bench = host.bench(lambda: False)
    assert bench.runs == 6
    assert bench.cpu_ratio is not None
    assert bench.cpu_ratio > 1.5
    assert bench.load_ms > 0
    assert bench.rss_mb is not None
    assert bench.anon_mb is not None
    assert bench.anon_mb < bench.rss_mb


def test_slots_beside_live_requests_are_skipped_and_time_is_bounded(tmp_path: Path) -> None:
    with running_host(tmp_path, bench_runs=10_000, bench_limit_s=1.0) as host:
        host.start_live(*linear_version(tmp_path, 1, hidden=512, layers=12))
        host.load_candidate(*linear_version(tmp_path, 2))
        with Clients(tmp_path / "infer.sock", 4) as clients:
            bench = host.bench(lambda: False)
    assert bench.runs >= 5
    assert bench.contention > 0
    assert clients.faults == []


def test_a_live_worker_that_dies_does_not_end_the_benchmark(tmp_path: Path) -> None:
    with running_host(tmp_path, bench_runs=30) as host:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2))
        asked = 0

        def once() -> bool:
            nonlocal asked
            asked += 1
            if asked == 3:
                kill(host.live_pid)
            return False

        assert host.bench(once).runs == 30
        assert host.crashes == 1


def test_a_round_measures_beside_the_original_and_leaves_the_live_worker_alone(tmp_path: Path) -> None:
    with running_host(tmp_path, round_runs=12, nice_candidate=0) as host:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 3))
        golden = host.load_original(*linear_version(tmp_path, 2, hidden=512, layers=12))
        served = host.live_pid
        bench = host.bench(lambda: False)
        assert host.live_pid == served
        host.discard_candidate()
    side = bench.beside
    assert side is not None
    assert (bench.runs, side.golden) == (12, golden)
    assert side.p50_ms <= side.p95_ms <= side.p99_ms
    assert side.cpu_ms > bench.cpu_ms
    assert bench.cpu_ratio is not None
    assert bench.cpu_ratio < 0.9
    assert bench.p99_ms is not None
    assert bench.peak_mb is not None
    assert side.peak_mb is not None
    assert bench.threads == 1
    assert side.load_ms > 0


def test_live_requests_are_spared_during_a_round(tmp_path: Path) -> None:
    with running_host(tmp_path, round_runs=6, round_limit_s=8.0, round_least=5, nice_candidate=0) as host:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 3))
        host.load_original(*linear_version(tmp_path, 2))
        with Clients(tmp_path / "infer.sock", 1) as clients:
            bench = host.bench(lambda: False)
    assert bench.runs >= 5
    assert clients.faults == []
    assert clients.versions == {1}
