"""What paired, interleaved timings of a candidate and the live version say.

Ratios are medians over pairs: both runs of a pair met the same noise. CPU time is what a verdict may rest on; wall time
of a process held back by the scheduler is told beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from wavegate_shared.wire import Bench, BenchSide

__all__ = ["Pair", "Timing", "beside", "quantile", "summarise"]


@dataclass(frozen=True, slots=True)
class Timing:
    """One run."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Pair:
    """One slot: the candidate's run and, where there is one, that of the version beside it: the live one, or the original."""

    candidate: Timing
    live: Timing | None = None


def summarise(
    pairs: Sequence[Pair], *, skipped: int, load_ms: float, rss_mb: float | None, anon_mb: float | None
) -> Bench:
    """The figures of a benchmark.

    Args:
        pairs: slots that ran, n >= 1.
        skipped: slots not used because a live request was in flight.
        load_ms: the candidate's load time.
        rss_mb: its resident memory in MiB.
        anon_mb: its anonymous memory in MiB.
    """
    walls = sorted(pair.candidate.wall_ms for pair in pairs)
    both = [(pair.candidate, pair.live) for pair in pairs if pair.live is not None]
    cpu = [ours.cpu_ms / theirs.cpu_ms for ours, theirs in both if theirs.cpu_ms > 0]
    wall = [ours.wall_ms / theirs.wall_ms for ours, theirs in both if theirs.wall_ms > 0]
    return Bench(
        runs=len(pairs),
        p50_ms=quantile(walls, 0.5),
        p95_ms=quantile(walls, 0.95),
        p99_ms=quantile(walls, 0.99),
        cpu_ms=median(pair.candidate.cpu_ms for pair in pairs),
        active_p50_ms=quantile(sorted(live.wall_ms for _, live in both), 0.5) if both else None,
        cpu_ratio=median(cpu) if cpu else None,
        wall_ratio=median(wall) if wall else None,
        contention=skipped / (skipped + len(pairs)),
        load_ms=load_ms,
        rss_mb=rss_mb,
        anon_mb=anon_mb,
    )


def beside(pairs: Sequence[Pair], sha256: str) -> BenchSide | None:
    """The other side's own figures, None when no pair has one; memory and golden set are the caller's to add."""
    runs = [pair.live for pair in pairs if pair.live is not None]
    if not runs:
        return None
    walls = sorted(run.wall_ms for run in runs)
    p50, p95, p99 = (quantile(walls, q) for q in (0.5, 0.95, 0.99))
    return BenchSide(sha256=sha256, p50_ms=p50, p95_ms=p95, p99_ms=p99, cpu_ms=median(run.cpu_ms for run in runs))


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile of sorted values, n >= 1, linear between neighbours."""
    at = q * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)
