"""How the control process starts, tests, swaps, reverts and reads the workers of one slot.

The process that was tested is the one that goes live. The previous one stays loaded as standby until `release_standby`,
so going back takes a hand-over and no load; when the live one dies meanwhile, the standby serves within milliseconds while
the live version is started again.

The pool's thread watches all workers and restarts a crashed live one at once, whatever the runner is doing. Public methods are the runner's, called from one thread. Imports neither numpy nor
onnxruntime.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavegate_agent.adapters.bench_driver import BenchDriver
from wavegate_agent.adapters.listening import ListeningSockets
from wavegate_agent.adapters.process_memory import available_mb
from wavegate_agent.adapters.worker_pool import WorkerPool
from wavegate_agent.adapters.worker_process import WorkerProcess
from wavegate_agent.core.link import Done, Golden, HandOver, Load, Promote, Reply, Serve
from wavegate_agent.core.live_stats import LiveStats
from wavegate_shared.errors import DeviceError
from wavegate_shared.manifest import Manifest
from wavegate_shared.wire import Bench, GoldenResult

__all__ = ["WorkerExit", "WorkerHost", "WorkerSettings"]

_CALL_S = 5.0
_SWAP_S = 10.0
_RESTART_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CALM_S = 60.0
_CPU_LIMIT_FACTOR = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the workers of one slot listen and run.

    Attributes:
        unix_path: the inference API's socket.
        tcp_port: also on 127.0.0.1; 0 for any free port, None for none.
        intra_threads: threads of one inference.
        concurrency: inferences at once.
        nice_candidate: nice value of a candidate, on top of SCHED_IDLE; 0 leaves candidates at live priority.
        load_timeout_s: for loading and warming.
        golden_timeout_s: for the golden set.
        memory_limit_mb: what a worker may allocate beyond its libraries; None for no limit.
        bench_runs: pairs in a benchmark.
        bench_duty: share of time its runs may take.
        bench_limit_s: a benchmark beside heavy traffic ends after this long with fewer pairs.
    """

    unix_path: Path
    tcp_port: int | None = None
    intra_threads: int = 1
    concurrency: int = 2
    nice_candidate: int = 19
    load_timeout_s: float = 60
    golden_timeout_s: float = 300
    memory_limit_mb: int | None = None
    bench_runs: int = 40
    bench_duty: float = 0.1
    bench_limit_s: float = 60


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker that ended by itself: role `live`, `candidate` or `standby`; `signal` is its number, or None."""

    version: int
    role: str
    status: int
    signal: int | None
    detail: str


class WorkerHost:
    """Owns the listening sockets of one slot for the life of the agent, and the worker processes behind them."""

    def __init__(self, slot: str, settings: WorkerSettings) -> None:
        """Bind the sockets and start watching. Raises OSError when the sockets cannot be bound."""
        self._slot = slot
        self._settings = settings
        self._sockets = ListeningSockets(settings.unix_path, settings.tcp_port)
        self._lock = threading.RLock()
        self._live: WorkerProcess | None = None  # in charge
        self._serving: WorkerProcess | None = None  # has the sockets; not the live one while that is being restarted
        self._candidate: WorkerProcess | None = None
        self._standby: WorkerProcess | None = None
        self._replacement: WorkerProcess | None = None  # of a crashed live worker, loading
        self._previous: tuple[Path, Manifest] | None = None
        self._flipping = False
        self._closing = False
        self._restarts = 0
        self._live_since = 0.0
        self._load_ms = 0.0
        self._priority = "none"
        self._crashes = 0
        self._exits: list[WorkerExit] = []
        self._pool = WorkerPool(f"workers-{slot}", self._on_exit)

    # --- facts --------------------------------------------------------------------------------------------------------

    @property
    def live_version(self) -> int:
        """The version in charge, 0 when there is none; also while its worker is being restarted."""
        with self._lock:
            return self._live.version if self._live else 0

    @property
    def crashes(self) -> int:
        """How often a live worker ended by itself; only rises."""
        return self._crashes

    @property
    def tcp_port(self) -> int | None:
        """The TCP port bound on loopback, None without one."""
        return self._sockets.tcp_port

    @property
    def priority(self) -> str:
        """How the last candidate was held back: `sched_idle`, or `none` where it could not be undone."""
        return self._priority

    @property
    def standby_version(self) -> int:
        """The version kept loaded for a revert, 0 when there is none."""
        with self._lock:
            return self._standby.version if self._standby and not self._standby.ended else 0

    # --- start and test -----------------------------------------------------------------------------------------------

    def start_live(self, version_dir: Path, manifest: Manifest) -> None:
        """Start a version and let it serve: at boot, or in place of whatever serves.

        Raises:
            DeviceError: `load_failed`, `candidate_crashed`, `model_rejected`, `incompatible` or `memory_short`.
        """
        process = self._pool.spawn(version_dir, manifest, nice=0)
        try:
            self._load(process, candidate=False)
            self._flip(process)
        except DeviceError:
            self._pool.end(process)
            raise
        self.release_standby()
        _log.info("worker_live slot=%s version=%d pid=%d", self._slot, process.version, process.pid)

    def load_candidate(self, version_dir: Path, manifest: Manifest) -> float:
        """Start a candidate beside the live version, held back by the scheduler; one that exists is discarded.

        Returns:
            Milliseconds from start to loaded and warm.

        Raises:
            DeviceError: `load_failed`, `candidate_crashed`, `model_rejected`, `incompatible` or `memory_short`.
        """
        self.discard_candidate()
        free = available_mb()
        if free is not None and free < manifest.requires.memory_mb:
            raise DeviceError("memory_short", f"{free:.0f} MB free, the version needs {manifest.requires.memory_mb} MB")
        start = time.monotonic()
        process = self._pool.spawn(version_dir, manifest, nice=self._settings.nice_candidate)
        with self._lock:
            self._candidate = process
        try:
            self._load(process, candidate=True)
        except DeviceError:
            self.discard_candidate()
            raise
        self._load_ms = (time.monotonic() - start) * 1000
        return self._load_ms

    def golden(self) -> GoldenResult:
        """Run the candidate's golden set through its whole pipeline.

        Raises:
            DeviceError: `candidate_crashed`, or `golden_failed` when it did not finish.
        """
        done = self._testee().call(
            lambda call: Golden(call=call), timeout_s=self._settings.golden_timeout_s, late="golden_failed"
        )
        if done.golden is None:
            raise DeviceError("golden_failed", "the candidate gave no result")
        return done.golden

    def bench(self, should_stop: Callable[[], bool]) -> Bench:
        """Measure the candidate beside the live version, paired and interleaved, within the duty cycle.

        Args:
            should_stop: asked in every slot.

        Raises:
            DeviceError: `candidate_crashed`, or `bench_failed` when stopped before the first pair.
        """
        settings = self._settings
        driver = BenchDriver(
            candidate=self._testee(),
            live=self._serving_worker,
            runs=settings.bench_runs,
            duty=settings.bench_duty,
            limit_s=settings.bench_limit_s,
        )
        return driver.run(should_stop, self._load_ms)

    def discard_candidate(self) -> None:
        """End the candidate; does nothing when there is none."""
        with self._lock:
            process, self._candidate = self._candidate, None
        if process is not None:
            self._pool.end(process)

    def _testee(self) -> WorkerProcess:
        with self._lock:
            process = self._candidate
        if process is None:
            raise DeviceError("candidate_crashed", "there is no candidate")
        if process.ended:
            raise DeviceError("candidate_crashed", f"the candidate ended: {process.how_ended()}")
        return process

    # --- swap and revert ----------------------------------------------------------------------------------------------

    def swap(self) -> float:
        """Make the candidate live: it takes over the sockets and every open connection; the old one becomes standby.

        Returns:
            Milliseconds from the promotion to the last idle connection handed over.

        Raises:
            DeviceError: `swap_failed` or `candidate_crashed`; the old version still serves, the candidate is gone.
        """
        candidate = self._testee()
        start = time.monotonic()
        try:
            self._flip(candidate)
        except DeviceError:
            self.discard_candidate()
            raise
        took = (time.monotonic() - start) * 1000
        _log.info("worker_swapped slot=%s version=%d swap_ms=%.1f", self._slot, candidate.version, took)
        return took

    def revert(self) -> float:
        """Give everything back to the previous version; the one in charge until now ends.

        Returns:
            Milliseconds; a standby that is gone is started again from its directory first.

        Raises:
            DeviceError: `swap_failed` when there is no previous version, or what loading it raised; the current version
                goes on then.
        """
        start = time.monotonic()
        with self._lock:
            previous, target = self._previous, self._standby
        if previous is None:
            raise DeviceError("swap_failed", "there is no previous version to go back to")
        if target is None or target.ended:
            target = self._pool.spawn(*previous, nice=0)
            try:
                self._load(target, candidate=False)
            except DeviceError:
                self._pool.end(target)
                raise
        self._flip(target)
        with self._lock:
            self._previous = None
        self.release_standby()
        took = (time.monotonic() - start) * 1000
        _log.info("worker_reverted slot=%s version=%d revert_ms=%.1f", self._slot, target.version, took)
        return took

    def release_standby(self) -> None:
        """End the standby; its last counts stay for `collect`, its directory stays what `revert` goes back to."""
        with self._lock:
            process = self._standby
            if process is None or process is self._serving:
                return  # a standby that stands in for a crashed live worker stays until that one is back
            self._standby = None
        self._pool.end(process)

    def _flip(self, taker: WorkerProcess) -> None:
        """Let `taker` serve and be in charge; what serves now gives it everything and becomes standby."""
        with self._lock:
            self._flipping = True
        try:
            taker.call(lambda call: Promote(call=call), timeout_s=_CALL_S, late="swap_failed")
            giver = self._serving_worker()
            if giver is not taker:
                self._exchange(giver, taker)
        except DeviceError:
            with self._lock:
                self._flipping = False
                self._recover()
            raise
        with self._lock:
            surplus = self._settle_roles(taker)
            self._flipping = False
            self._recover()  # it may have died since
        for process in surplus:
            self._pool.end(process)

    def _settle_roles(self, taker: WorkerProcess) -> list[WorkerProcess]:
        """After a flip: who is what; returns the workers nobody needs."""
        before = [process for process in (self._live, self._standby) if process not in (None, taker)]
        alive = [process for process in before if process is not None and not process.ended]
        self._standby = alive[0] if alive else None
        last = self._standby or next((process for process in before if process is not None), None)
        if last is not None:
            self._previous = (last.directory, last.manifest)
        if taker is self._candidate:
            self._candidate = None
        self._live = self._serving = taker
        self._live_since = time.monotonic()
        self._restarts = 0
        self._pool.set_timer(None, self._restart)
        replacement, self._replacement = self._replacement, None
        return [*alive[1:], *([replacement] if replacement is not None else [])]

    def _exchange(self, giver: WorkerProcess | None, taker: WorkerProcess) -> None:
        if giver is None:
            taker.call(self._serve_call(peer=False), self._sockets.descriptors, timeout_s=_CALL_S, late="swap_failed")
            return
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with left, right:
            descriptors = [*self._sockets.descriptors, right.fileno()]
            taker.call(self._serve_call(peer=True), descriptors, timeout_s=_CALL_S, late="swap_failed")
            right.close()  # the giver must see the end when the taker dies
            try:
                giver.call(_hand_over, [left.fileno()], timeout_s=_SWAP_S, late="swap_failed", spare=True)
            except DeviceError as error:
                if giver.ended and not taker.ended:
                    return  # the giver died: the taker serves, the clients of the dead one connect again
                taker.expected_end = True
                taker.kill()  # the giver takes back what was not claimed when it sees the taker's end
                raise DeviceError("swap_failed", error.detail) from error

    def _serve_call(self, *, peer: bool) -> Callable[[int], Serve]:
        return lambda call: Serve(call=call, peer=peer)

    # --- counts -------------------------------------------------------------------------------------------------------

    def collect(self) -> list[LiveStats]:
        """Counts since the last call, by version, lowest first; a worker that does not answer in time counts next time."""
        return self._pool.collect()

    def poll(self) -> list[WorkerExit]:
        """Workers that ended by themselves since the last call; a live one is being restarted already."""
        with self._lock:
            exits, self._exits = self._exits, []
        return exits

    def close(self) -> None:
        """End all workers, after the requests they answer, and the listening sockets; twice is allowed."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._pool.close()
        self._sockets.close()

    # --- crashes (on the pool's thread) -------------------------------------------------------------------------------

    def _on_exit(self, process: WorkerProcess) -> None:
        with self._lock:
            if process is self._replacement:
                self._replacement = None
                self._schedule_restart()
            if process.expected_end or self._closing:
                return
            role = next((name for name, known in self._roles() if known is process), "candidate")
            self._exits.append(WorkerExit(process.version, role, process.status, process.signal, process.how_ended()))
            self._crashes += role == "live"
            _log.warning(
                "worker_ended slot=%s version=%d role=%s how=%s", self._slot, process.version, role, process.how_ended()
            )
            if not self._flipping:
                self._recover()

    def _roles(self) -> list[tuple[str, WorkerProcess | None]]:
        return [("live", self._live), ("live", self._replacement), ("standby", self._standby)]

    def _recover(self) -> None:
        """Where the live worker is gone: let the standby serve at once, and start the live version again."""
        if self._closing or self._live is None or not self._live.ended:
            return
        if self._serving_worker() is None:
            self._serving = None
            if self._standby is not None and not self._standby.ended:
                self._serving = self._standby
                self._standby.post(self._serve_call(peer=False), self._sockets.descriptors)
        if self._replacement is None:
            self._schedule_restart()

    def _schedule_restart(self) -> None:
        if time.monotonic() - self._live_since > _CALM_S:
            self._restarts = 0
        pause = _RESTART_PAUSES_S[min(self._restarts, len(_RESTART_PAUSES_S) - 1)]
        self._restarts += 1
        self._pool.set_timer(time.monotonic() + pause, self._restart)

    def _restart(self) -> None:
        with self._lock:
            crashed = self._live
            if self._closing or self._flipping or crashed is None or not crashed.ended or self._replacement:
                return
            process = self._pool.spawn(crashed.directory, crashed.manifest, nice=0)
            self._replacement = process
        process.post(
            self._load_call(process, candidate=False, again=True), on_reply=lambda r: self._reloaded(process, r)
        )

    def _reloaded(self, process: WorkerProcess, reply: Reply | None) -> None:
        with self._lock:
            if process is not self._replacement:
                return
            if not isinstance(reply, Done) or self._flipping:
                process.expected_end = True
                process.kill()  # its end schedules the next try
                return
            giver = self._serving_worker()
            self._replacement = None
            self._live = self._serving = process
            self._live_since = time.monotonic()
            if giver is None:
                process.post(self._serve_call(peer=False), self._sockets.descriptors)
                return
            left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with left, right:
                process.post(self._serve_call(peer=True), [*self._sockets.descriptors, right.fileno()])
                giver.post(_hand_over, [left.fileno()])

    # --- small --------------------------------------------------------------------------------------------------------

    def _load(self, process: WorkerProcess, *, candidate: bool) -> None:
        done = process.call(self._load_call(process, candidate=candidate), timeout_s=self._settings.load_timeout_s)
        if candidate:
            self._priority = done.text

    def _load_call(self, process: WorkerProcess, *, candidate: bool, again: bool = False) -> Callable[[int], Load]:
        settings = self._settings
        return lambda call: Load(
            call=call,
            directory=str(process.directory),
            intra_threads=settings.intra_threads,
            concurrency=settings.concurrency,
            memory_limit_mb=settings.memory_limit_mb,
            cpu_limit_s=int(settings.load_timeout_s * _CPU_LIMIT_FACTOR) if candidate else None,
            check_digests=not again,
        )

    def _serving_worker(self) -> WorkerProcess | None:
        with self._lock:
            return self._serving if self._serving is not None and not self._serving.ended else None


def _hand_over(call: int) -> HandOver:
    return HandOver(call=call)
