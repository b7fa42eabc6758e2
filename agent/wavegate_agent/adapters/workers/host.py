"""How the control process starts, tests, swaps, reverts and reads the workers of one slot.

The process that was tested is the one that goes live. The previous one stays loaded as standby until `release_standby`,
so going back takes a hand-over and no load; when the live one dies meanwhile, the standby serves within milliseconds while
the live version is started again.

The pool's thread watches all workers and restarts a crashed live one at once, whatever the runner is doing. Public methods are the runner's, called from one thread. Imports neither numpy nor
onnxruntime.
"""

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from wavegate_agent.adapters.device.facts import frequency_mhz, temperature_c
from wavegate_agent.adapters.device.process_memory import available_mb
from wavegate_agent.adapters.workers.bench_driver import BenchDriver
from wavegate_agent.adapters.workers.listening import DeviceSockets
from wavegate_agent.adapters.workers.own_request import send_own_request
from wavegate_agent.adapters.workers.process import WorkerProcess
from wavegate_agent.adapters.workers.roles import (
    WorkerExit,
    WorkerRoles,
    WorkerSettings,
    hand_over_call,
    load_call,
    serve_call,
)
from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.probation import OwnAnswer
from wavegate_agent.core.worker_messages import Golden, Promote
from wavegate_shared.errors import DeviceError, TrustError
from wavegate_shared.manifest import Manifest
from wavegate_shared.wire import Bench, GoldenResult

__all__ = ["WorkerExit", "WorkerHost", "WorkerSettings"]

_CALL_S = 5.0
_SWAP_S = 10.0

_log = logging.getLogger(__name__)


class WorkerHost:
    """Owns the worker processes of one slot, and the inbox through which they get connections from other slots' workers."""

    def __init__(self, slot: str, settings: WorkerSettings, sockets: DeviceSockets) -> None:
        """Open the inbox and start watching; `sockets` are the device's, shared by its slots."""
        self._slot = slot
        self._settings = settings
        self._sockets = sockets.open(self._routes_changed)
        self._roles = WorkerRoles(slot, settings, self._sockets)
        self._pool = self._roles.pool
        self._load_ms = self._original_load_ms = 0.0
        self._original_golden: GoldenResult | None = None
        self._priority = "none"

    # --- facts --------------------------------------------------------------------------------------------------------

    @property
    def live_version(self) -> int:
        """The version in charge, 0 when there is none; also while its worker is being restarted."""
        with self._roles.lock:
            return self._roles.live.version if self._roles.live else 0

    @property
    def crashes(self) -> int:
        """How often a live worker ended by itself; only rises."""
        return self._roles.crashes

    @property
    def tcp_port(self) -> int | None:
        """The TCP port bound on loopback, None without one."""
        return self._sockets.device.listening.tcp_port

    @property
    def priority(self) -> str:
        """How the last candidate was held back: `sched_idle`, or `none` where it could not be undone."""
        return self._priority

    @property
    def live_pid(self) -> int | None:
        """Process id of the worker that serves, None while there is none."""
        serving = self._roles.able_to_serve()
        return serving.pid if serving else None

    @property
    def in_charge(self) -> bool:
        """Whether the version in charge is the one that serves; False while it is being restarted after a crash."""
        with self._roles.lock:
            serving = self._roles.able_to_serve()
            return serving is not None and serving is self._roles.live

    @property
    def candidate_pid(self) -> int | None:
        """Process id of the candidate, None when there is none."""
        with self._roles.lock:
            return self._roles.candidate.pid if self._roles.candidate else None

    @property
    def standby_version(self) -> int:
        """The version kept loaded for a revert, 0 when there is none."""
        with self._roles.lock:
            return self._roles.standby.version if self._roles.standby and not self._roles.standby.ended else 0

    # --- start and test -----------------------------------------------------------------------------------------------

    def start_live(self, version_dir: Path, manifest: Manifest) -> None:
        """Start a version and let it serve: at boot, or in place of whatever serves.

        Raises:
            DeviceError: `load_failed`, `candidate_crashed`, `model_rejected`, `incompatible` or `memory_short`.
            TrustError: `bench_only`.
        """
        _check_live(manifest)
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
        _demand_memory(manifest)
        start = time.monotonic()
        process = self._pool.spawn(version_dir, manifest, nice=self._settings.nice_candidate)
        with self._roles.lock:
            self._roles.candidate = process
        try:
            self._load(process, candidate=True)
        except DeviceError:
            self.discard_candidate()
            raise
        self._load_ms = (time.monotonic() - start) * 1000
        return self._load_ms

    def load_original(self, version_dir: Path, manifest: Manifest) -> GoldenResult:
        """For a bench round: start what the candidate is measured beside, held back like it, and run its golden set.

        Raises:
            DeviceError: `bench_failed` (the original does not run here) or `memory_short`.
        """
        _demand_memory(manifest)
        start = time.monotonic()
        process = self._pool.spawn(version_dir, manifest, nice=self._settings.nice_candidate)
        with self._roles.lock:
            self._roles.original = process
        try:
            self._load(process, candidate=True)
            self._original_load_ms = (time.monotonic() - start) * 1000
            self._original_golden = self._golden_of(process)
        except DeviceError as error:
            if error.code == "memory_short":
                raise
            raise DeviceError("bench_failed", f"the original beside it: {error}") from error
        return self._original_golden

    def golden(self) -> GoldenResult:
        """Run the candidate's golden set through its whole pipeline.

        Raises:
            DeviceError: `candidate_crashed`, or `golden_failed` when it did not finish.
        """
        return self._golden_of(self._testee())

    def _golden_of(self, process: WorkerProcess) -> GoldenResult:
        done = process.call(
            lambda call: Golden(call=call), timeout_s=self._settings.golden_timeout_s, late="golden_failed"
        )
        if done.golden is None:
            raise DeviceError("golden_failed", "the candidate gave no result")
        return done.golden

    def bench(self, should_stop: Callable[[], bool]) -> Bench:
        """Measure the candidate beside the live version (or the original, where one is loaded), paired and interleaved.

        Args:
            should_stop: asked in every slot.

        Raises:
            DeviceError: `candidate_crashed`, or `bench_failed` when stopped before the first pair.
        """
        settings, original = self._settings, self._roles.original
        driver = BenchDriver(
            candidate=self._testee(),
            live=self._roles.able_to_serve,
            runs=settings.bench_runs,
            duty=settings.bench_duty,
            limit_s=settings.bench_limit_s,
        )
        if original is not None:
            driver.original, driver.runs = original, settings.round_runs
            driver.limit_s, driver.least = settings.round_limit_s, settings.round_least
        bench = driver.run(should_stop, self._load_ms)
        side = bench.beside and msgspec.structs.replace(
            bench.beside, load_ms=self._original_load_ms, golden=self._original_golden
        )
        state = {"temperature_c": temperature_c(), "frequency_mhz": frequency_mhz()}
        return msgspec.structs.replace(bench, beside=side, threads=settings.intra_threads, **state)

    def discard_candidate(self) -> None:
        """End the candidate, and the original it was measured beside; does nothing when there is none."""
        with self._roles.lock:
            ending = [process for process in (self._roles.candidate, self._roles.original) if process is not None]
            self._roles.candidate = self._roles.original = None
        for process in ending:
            self._pool.end(process)

    def _testee(self) -> WorkerProcess:
        with self._roles.lock:
            process = self._roles.candidate
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
            TrustError: `bench_only`: it was signed to be measured; nothing changed.
        """
        candidate = self._testee()
        _check_live(candidate.manifest)
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
        with self._roles.lock:
            previous, target = self._roles.previous, self._roles.standby
        if previous is None:
            raise DeviceError("swap_failed", "there is no previous version to go back to")
        fresh = target is None or target.ended
        if target is None or fresh:
            target = self._pool.spawn(*previous, nice=0)
        try:
            if fresh:
                self._load(target, candidate=False)
            self._flip(target)
        except DeviceError:
            if fresh:
                self._pool.end(target)
            raise
        with self._roles.lock:
            self._roles.previous = None
        self.release_standby()
        took = (time.monotonic() - start) * 1000
        _log.info("worker_reverted slot=%s version=%d revert_ms=%.1f", self._slot, target.version, took)
        return took

    def release_standby(self) -> None:
        """End the standby; its last counts stay for `collect`, its directory stays what `revert` goes back to."""
        with self._roles.lock:
            process = self._roles.standby
            if process is None or process is self._roles.serving:
                return  # a standby that stands in for a crashed live worker stays until that one is back
            self._roles.standby = None
        self._pool.end(process)

    def _flip(self, taker: WorkerProcess) -> None:
        """Let `taker` serve and be in charge; what serves now gives it everything and becomes standby."""
        with self._roles.lock:
            self._roles.flipping = True
        try:
            taker.call(lambda call: Promote(call=call), timeout_s=_CALL_S, late="swap_failed")
            giver = self._roles.able_to_serve()
            self._roles.post_routes(taker)
            if giver is not taker:
                self._exchange(giver, taker)
        except DeviceError:
            with self._roles.lock:
                self._roles.flipping = False
                self._roles.recover()
            raise
        with self._roles.lock:
            surplus = self._roles.settle(taker)
            self._roles.flipping = False
            self._roles.recover()  # it may have died since
        self._sockets.serve(taker.manifest.model, taker.version)
        self._routes_changed()
        for process in surplus:
            self._pool.end(process)

    def _exchange(self, giver: WorkerProcess | None, taker: WorkerProcess) -> None:
        if giver is None:
            taker.call(serve_call(peer=False), self._sockets.descriptors, timeout_s=_CALL_S, late="swap_failed")
            return
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with left, right:
            descriptors = [*self._sockets.descriptors, right.fileno()]
            taker.call(serve_call(peer=True), descriptors, timeout_s=_CALL_S, late="swap_failed")
            right.close()  # the giver must see the end when the taker dies
            try:
                giver.call(hand_over_call, [left.fileno()], timeout_s=_SWAP_S, late="swap_failed", spare=True)
            except DeviceError as error:
                if giver.ended and not taker.ended:
                    return  # the giver died: the taker serves, the clients of the dead one connect again
                taker.expected_end = True
                taker.kill()  # the giver takes back what was not claimed when it sees the taker's end
                raise DeviceError("swap_failed", error.detail) from error

    # --- own requests -------------------------------------------------------------------------------------------------

    def own_request(self, sample: int) -> OwnAnswer | None:
        """Send a golden sample through the public socket; None when that says nothing about the version in charge."""
        with self._roles.lock:
            live = self._roles.live if self.in_charge else None
        return send_own_request(live, self._sockets.device.listening.path, sample) if live is not None else None

    # --- counts -------------------------------------------------------------------------------------------------------

    def collect(self) -> list[LiveStats]:
        """Counts since the last call, by version, lowest first; a worker that does not answer in time counts next time."""
        return self._pool.collect()

    def poll(self) -> list[WorkerExit]:
        """Workers that ended by themselves since the last call; a live one is being restarted already."""
        return self._roles.exits()

    def close(self) -> None:
        """End all workers, after the requests they answer, and the inbox; twice is allowed."""
        with self._roles.lock:
            if self._roles.closing:
                return
            self._roles.closing = True
        self._pool.close()
        self._sockets.close()

    def _routes_changed(self) -> None:
        self._roles.post_routes(self._roles.able_to_serve())

    # --- small --------------------------------------------------------------------------------------------------------

    def _load(self, process: WorkerProcess, *, candidate: bool) -> None:
        done = process.call(
            load_call(self._settings, process, candidate=candidate), timeout_s=self._settings.load_timeout_s
        )
        if candidate:
            self._priority = done.text


def _check_live(manifest: Manifest) -> None:
    """The last of three guards (verification, machine, here): a candidate for benching gets no socket."""
    if manifest.bench_only:
        raise TrustError(
            "bench_only", f"{manifest.model} {manifest.version} was signed for benching, not for going live"
        )


def _demand_memory(manifest: Manifest) -> None:
    free = available_mb()
    if free is not None and free < manifest.requires.memory_mb:
        raise DeviceError("memory_short", f"{free:.0f} MB free, the version needs {manifest.requires.memory_mb} MB")
