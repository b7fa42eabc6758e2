"""The worker processes of one slot, watched by one thread; and the counts they send, summed by version.

The thread hands answers to whoever waits, notices ends at once, runs one timer, and asks every worker now and then: an
answer proves that it lives and saves its counts, so a crash loses a few seconds of counts at most. Not here: which worker
is live (`adapters/workers/host.py`).
"""

import os
import selectors
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wavegate_agent.adapters.workers.process import WorkerProcess
from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.worker_messages import Collect, Stats, Stop, from_counts
from wavegate_shared.manifest import Manifest

__all__ = ["WorkerPool"]

_COLLECT_S = 5.0
_STOP_S = 5.0
_PING_S = 5.0
_SILENT_S = 30.0


class WorkerPool:
    """Starts, watches and ends workers.

    Args:
        on_exit: called on the watching thread when a worker is gone, wanted or not.
    """

    def __init__(self, name: str, on_exit: Callable[[WorkerProcess], None]) -> None:
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._workers: set[WorkerProcess] = set()
        self._stats: dict[int, LiveStats] = {}
        self._timer: tuple[float, Callable[[], None]] | None = None
        self._ping_at = time.monotonic() + _PING_S
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self._thread.start()

    def spawn(self, directory: Path, manifest: Manifest, *, nice: int) -> WorkerProcess:
        """Start a worker; it loads nothing yet."""
        process = WorkerProcess(directory, manifest, nice=nice, on_stats=self._take_stats)
        with self._lock:
            self._workers.add(process)
        self._selector.register(process.channel, selectors.EVENT_READ, process)
        self._poke()
        return process

    def end(self, process: WorkerProcess) -> None:
        """Let a worker finish what it answers and send its counts; kill it when it does not within seconds."""
        process.expected_end = True
        done = process.post(lambda call: Stop(call=call))
        if not done.event.wait(_STOP_S):
            process.kill()

    def set_timer(self, at: float | None, callback: Callable[[], None]) -> None:
        """Call back on the watching thread at this monotonic time; None forgets the one set before."""
        self._timer = None if at is None else (at, callback)
        self._poke()

    def collect(self) -> list[LiveStats]:
        """Counts since the last call by version, lowest first; a worker slow to answer counts next time."""
        with self._lock:
            workers = list(self._workers)
        waiting = [process.post(lambda call: Collect(call=call)) for process in workers]
        deadline = time.monotonic() + _COLLECT_S
        for one in waiting:
            one.event.wait(max(0.0, deadline - time.monotonic()))
        with self._lock:
            stats, self._stats = self._stats, {}
        return [stats[version] for version in sorted(stats)]

    def close(self) -> None:
        """End every worker, then the thread."""
        with self._lock:
            workers = list(self._workers)
        for process in workers:
            process.expected_end = True
            process.post(lambda call: Stop(call=call))
        deadline = time.monotonic() + _STOP_S
        for process in workers:
            process.gone.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.gone.wait(_STOP_S)
        self._stopping = True
        self._poke()
        self._thread.join()
        self._selector.close()
        os.close(self._wake)

    # --- the watching thread ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(self._pause()):
                if key.data is None:
                    os.eventfd_read(self._wake)
                elif key.data.on_readable():
                    self._gone(key.data, key.fd)
            self._run_timer()
            self._ping()

    def _pause(self) -> float:
        due = self._ping_at if self._timer is None else min(self._ping_at, self._timer[0])
        return max(0.0, due - time.monotonic())

    def _gone(self, process: WorkerProcess, descriptor: int) -> None:
        self._selector.unregister(process.channel)
        process.bury()
        with self._lock:
            self._workers.discard(process)
        self._on_exit(process)

    def _run_timer(self) -> None:
        timer = self._timer
        if timer is not None and timer[0] <= time.monotonic():
            self._timer = None
            timer[1]()

    def _ping(self) -> None:
        now = time.monotonic()
        if now < self._ping_at:
            return
        self._ping_at = now + _PING_S
        with self._lock:
            workers = list(self._workers)
        for process in workers:
            if process.asked_at is None:
                process.asked_at = now
                process.post(lambda call: Collect(call=call))
            elif process.must_answer and now - process.asked_at > _SILENT_S:
                process.kill()

    def _poke(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _take_stats(self, stats: Stats) -> None:
        with self._lock:
            for counts in stats.versions:
                fresh = from_counts(counts)
                known = self._stats.setdefault(fresh.version, LiveStats(version=fresh.version, model=fresh.model))
                known.merge(fresh)
