"""Which worker of a slot is live, serving, standby or candidate, and what happens when one dies.

A crashed live worker is started again at once from its directory; clients wait in the backlog of the listening sockets,
or, where a standby is loaded, are served by it meanwhile: it gets the sockets at once and hands them over when the live
version is back. Repeated crashes are retried with rising pauses. Control side.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavegate_agent.adapters.workers.listening import SlotSockets
from wavegate_agent.adapters.workers.pool import WorkerPool
from wavegate_agent.adapters.workers.process import WorkerProcess
from wavegate_agent.core.worker_messages import Done, HandOver, Load, Reply, Routes, Serve
from wavegate_shared.manifest import Manifest

__all__ = ["WorkerExit", "WorkerRoles", "WorkerSettings", "hand_over_call", "load_call", "serve_call"]

_RESTART_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CALM_S = 60.0
_CPU_LIMIT_FACTOR = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the workers of one slot run.

    Attributes:
        intra_threads: threads of one inference.
        concurrency: inferences at once.
        nice_candidate: nice value of a candidate, on top of SCHED_IDLE; 0 leaves candidates at live priority.
        load_timeout_s: for loading and warming.
        golden_timeout_s: for the golden set.
        memory_limit_mb: what a worker may allocate beyond its libraries; None for no limit.
        bench_runs: pairs in a benchmark.
        bench_duty: share of time its runs may take.
        bench_limit_s: a benchmark beside heavy traffic ends after this long with fewer pairs.
        round_runs, round_limit_s: the same of a bench round, which has at least `round_least` pairs.
    """

    intra_threads: int = 1
    concurrency: int = 2
    nice_candidate: int = 19
    load_timeout_s: float = 60
    golden_timeout_s: float = 300
    memory_limit_mb: int | None = None
    bench_runs: int = 40
    bench_duty: float = 0.1
    bench_limit_s: float = 60
    round_runs: int = 200
    round_limit_s: float = 15
    round_least: int = 20


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker that ended by itself: role `live`, `candidate` or `standby`; `signal` is its number, or None."""

    version: int
    role: str
    status: int
    signal: int | None
    detail: str


class WorkerRoles:
    """The workers by role; shared by the runner's calls and the pool's thread, under `lock`.

    Attributes:
        lock: held for every change of roles, never while waiting for a worker.
        live: in charge.
        serving: has the sockets; not the live one while that is being restarted.
        standby: the previous version, loaded.
        candidate: under test.
        original: what the candidate is measured beside in a bench round; never serves.
        previous: what a revert goes back to.
        flipping: a hand-over is on its way; a crash is dealt with at its end.
        crashes: how often a live worker ended by itself.
    """

    def __init__(self, slot: str, settings: WorkerSettings, sockets: SlotSockets) -> None:
        self.lock = threading.RLock()
        self.live: WorkerProcess | None = None
        self.serving: WorkerProcess | None = None
        self.standby: WorkerProcess | None = None
        self.candidate: WorkerProcess | None = None
        self.original: WorkerProcess | None = None
        self.previous: tuple[Path, Manifest] | None = None
        self.flipping = False
        self.closing = False
        self.crashes = 0
        self._slot = slot
        self._settings = settings
        self._sockets = sockets
        self._replacement: WorkerProcess | None = None  # of a crashed live worker, loading
        self._restarts = 0
        self._live_since = 0.0
        self._exits: list[WorkerExit] = []
        self.pool = WorkerPool(f"workers-{slot}", self._on_exit)

    def able_to_serve(self) -> WorkerProcess | None:
        """The worker that serves now, None while there is none."""
        with self.lock:
            return self.serving if self.serving is not None and not self.serving.ended else None

    def post_routes(self, process: WorkerProcess | None) -> None:
        """Tell a worker which models this device serves; before it serves, and after each change."""
        if process is not None and not process.ended:
            models, inboxes = self._sockets.device.routes()
            process.post(lambda call: Routes(call=call, models=models), inboxes)

    def exits(self) -> list[WorkerExit]:
        """Workers that ended by themselves since the last call."""
        with self.lock:
            exits, self._exits = self._exits, []
        return exits

    def settle(self, taker: WorkerProcess) -> list[WorkerProcess]:
        """After a flip: who is what; returns the workers nobody needs."""
        before = [process for process in (self.live, self.standby) if process not in (None, taker)]
        alive = [process for process in before if process is not None and not process.ended]
        self.standby = alive[0] if alive else None
        last = self.standby or next((process for process in before if process is not None), None)
        if last is not None:
            self.previous = (last.directory, last.manifest)
        if taker is self.candidate:
            self.candidate = None
        self.live = self.serving = taker
        taker.must_answer = True
        self._live_since = time.monotonic()
        self._restarts = 0
        self.pool.set_timer(None, self._restart)
        replacement, self._replacement = self._replacement, None
        return [*alive[1:], *([replacement] if replacement is not None else [])]

    # --- crashes (on the pool's thread) -------------------------------------------------------------------------------

    def _on_exit(self, process: WorkerProcess) -> None:
        with self.lock:
            if process is self._replacement:
                self._replacement = None
                self._schedule_restart()
            if process.expected_end or self.closing:
                return
            role = next((name for name, known in self._roles() if known is process), "candidate")
            self._exits.append(WorkerExit(process.version, role, process.status, process.signal, process.how_ended()))
            self.crashes += role == "live"
            _log.warning(
                "worker_ended slot=%s version=%d role=%s how=%s", self._slot, process.version, role, process.how_ended()
            )
            if not self.flipping:
                self.recover()

    def _roles(self) -> list[tuple[str, WorkerProcess | None]]:
        return [("live", self.live), ("live", self._replacement), ("standby", self.standby)]

    def recover(self) -> None:
        """Where the live worker is gone: let the standby serve at once, and start the live version again."""
        if self.closing or self.live is None or not self.live.ended:
            return
        if self.able_to_serve() is None:
            self.serving = None
            if self.standby is not None and not self.standby.ended:
                self.serving = self.standby
                self.post_routes(self.standby)
                self.standby.post(serve_call(peer=False), self._sockets.descriptors)
        if self._replacement is None:
            self._schedule_restart()

    def _schedule_restart(self) -> None:
        if time.monotonic() - self._live_since > _CALM_S:
            self._restarts = 0
        pause = _RESTART_PAUSES_S[min(self._restarts, len(_RESTART_PAUSES_S) - 1)]
        self._restarts += 1
        self.pool.set_timer(time.monotonic() + pause, self._restart)

    def _restart(self) -> None:
        with self.lock:
            crashed = self.live
            if self.closing or self.flipping or crashed is None or not crashed.ended or self._replacement:
                return
            process = self.pool.spawn(crashed.directory, crashed.manifest, nice=0)
            self._replacement = process
        process.post(
            load_call(self._settings, process, candidate=False, again=True),
            on_reply=lambda r: self._reloaded(process, r),
        )

    def _reloaded(self, process: WorkerProcess, reply: Reply | None) -> None:
        with self.lock:
            if process is not self._replacement:
                return
            if not isinstance(reply, Done) or self.flipping:
                process.expected_end = True
                process.kill()  # its end schedules the next try
                return
            giver = self.able_to_serve()
            self.post_routes(process)
            self._replacement = None
            self.live = self.serving = process
            process.must_answer = True
            self._live_since = time.monotonic()
            if giver is None:
                process.post(serve_call(peer=False), self._sockets.descriptors)
                return
            left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with left, right:
                process.post(serve_call(peer=True), [*self._sockets.descriptors, right.fileno()])
                giver.post(hand_over_call, [left.fileno()])


def load_call(
    settings: WorkerSettings, process: WorkerProcess, *, candidate: bool, again: bool = False
) -> Callable[[int], Load]:
    """The call that loads a worker's version; `again` for files that ran here before."""
    return lambda call: Load(
        call=call,
        directory=str(process.directory),
        intra_threads=settings.intra_threads,
        concurrency=settings.concurrency,
        memory_limit_mb=settings.memory_limit_mb,
        cpu_limit_s=int(settings.load_timeout_s * _CPU_LIMIT_FACTOR) if candidate else None,
        check_digests=not again,
    )


def serve_call(*, peer: bool) -> Callable[[int], Serve]:
    """The call that lets a worker accept; with `peer`, and take over from another."""
    return lambda call: Serve(call=call, peer=peer)


def hand_over_call(call: int) -> HandOver:
    """The call that makes a worker give everything away."""
    return HandOver(call=call)
