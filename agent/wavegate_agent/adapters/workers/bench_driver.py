"""Drives a candidate's benchmark beside live traffic, within its duty cycle.

Each slot runs one golden sample on the candidate and on the live version, in alternating order, and rests nine times as
long as it ran (duty 10 %), so that the live version's p99 stays within 1.15 of being alone. A slot whose start meets a live
request in flight is skipped and counted as contention. Control side.

In a bench round the candidate alternates with the original, both held back alike; the live version runs nothing for it,
and the rests are taken only while live requests arrive.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from wavegate_agent.adapters.device.process_memory import process_memory
from wavegate_agent.adapters.workers.process import WorkerProcess
from wavegate_agent.core.bench_pairs import Pair, Timing, beside, summarise
from wavegate_agent.core.worker_messages import ASK_ONLY, BenchRun, BenchSample
from wavegate_shared.errors import DeviceError
from wavegate_shared.wire import Bench, BenchSide

__all__ = ["BenchDriver"]

_SKIP_PAUSE_S = 0.01
_RUN_TIMEOUT_S = 60.0
_LEAST_RUNS = 5
_QUIET_S = 3.0
"""Without a live request for this long, nobody is there to be spared."""


@dataclass(slots=True)
class BenchDriver:
    """One benchmark.

    Attributes:
        candidate: the version under test.
        live: gives the version in charge, or None while there is none.
        runs: slots to fill.
        duty: share of time that runs may take.
        limit_s: gives up filling slots after this long; `least` are filled whatever the traffic.
        original: in a bench round, what the candidate is measured beside instead of the live version.
    """

    candidate: WorkerProcess
    live: Callable[[], WorkerProcess | None]
    runs: int
    duty: float
    limit_s: float
    original: WorkerProcess | None = None
    least: int = _LEAST_RUNS
    _pairs: list[Pair] = field(default_factory=list)
    _skipped: int = 0
    _arrivals: int = 0
    _traffic_at: float = float("-inf")

    def run(self, should_stop: Callable[[], bool], load_ms: float) -> Bench:
        """Measure until enough slots ran, time is over, or `should_stop` says so (asked in each slot).

        Raises:
            DeviceError: `candidate_crashed`, or `bench_failed` when it was stopped before the first slot.
        """
        end = time.monotonic() + self.limit_s
        while len(self._pairs) < self.runs and not should_stop():
            late = time.monotonic() > end
            if late and len(self._pairs) >= self.least:
                break
            self._slot(force=late)
        if not self._pairs:
            raise DeviceError("bench_failed", "stopped before the first run")
        memory = process_memory(self.candidate.pid)
        bench = summarise(
            self._pairs, skipped=self._skipped, load_ms=load_ms, rss_mb=memory.rss_mb, anon_mb=memory.anon_mb
        )
        return msgspec.structs.replace(bench, peak_mb=memory.peak_mb, beside=self._beside())

    def _beside(self) -> BenchSide | None:
        """The original's own figures, in a bench round."""
        side = beside(self._pairs, self.original.directory.name) if self.original is not None else None
        if side is None or self.original is None:
            return None
        memory = process_memory(self.original.pid)
        return msgspec.structs.replace(side, rss_mb=memory.rss_mb, anon_mb=memory.anon_mb, peak_mb=memory.peak_mb)

    def _slot(self, *, force: bool) -> None:
        """Run both sides once, or skip the slot."""
        number = len(self._pairs)
        live = self.live()
        other = self.original or live
        order = [self.candidate] if other is None else [self.candidate, other]
        timings: dict[int, Timing] = {}
        for process in order if number % 2 else reversed(order):
            if process is not live and live is not None and not force and self._busy(live):
                return self._skip()
            sample = self._run(process, number, force=force)
            if sample is None:
                continue  # the live worker ended and is being restarted: this slot has no pair
            if not sample.ran or (sample.disturbed and not force):
                return self._skip()
            timings[process.pid] = Timing(sample.wall_ms, sample.cpu_ms)
        self._pairs.append(Pair(timings[self.candidate.pid], timings.get(other.pid) if other else None))

    def _skip(self) -> None:
        self._skipped += 1
        time.sleep(_SKIP_PAUSE_S)

    def _busy(self, live: WorkerProcess) -> bool:
        sample = self._run(live, ASK_ONLY, force=False)
        if sample is not None and sample.arrivals != self._arrivals:
            self._arrivals, self._traffic_at = sample.arrivals, time.monotonic()
        return sample is not None and not sample.ran

    def _rests(self) -> bool:
        return self.original is None or time.monotonic() - self._traffic_at < _QUIET_S

    def _run(self, process: WorkerProcess, number: int, *, force: bool) -> BenchSample | None:
        """One run and the rest after it; None when the live worker cannot answer."""
        ours = process in (self.candidate, self.original)
        start = time.monotonic()
        try:
            done = process.call(
                lambda call: BenchRun(call=call, sample=number, force=force),
                timeout_s=_RUN_TIMEOUT_S,
                late="bench_failed",
                spare=not ours,
            )
        except DeviceError as error:
            if process is self.original:
                raise DeviceError("bench_failed", f"the original beside it: {error.detail}") from error
            if ours:
                raise
            return None
        if done.bench is not None and done.bench.ran and number != ASK_ONLY and self._rests():
            time.sleep((time.monotonic() - start) * (1 / self.duty - 1))
        return done.bench
