"""How the control process starts, tests, swaps, reverts and reads the workers of one slot.

(Signature first; the implementation follows.) Imports neither numpy nor onnxruntime.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavegate_agent.core.live_stats import LiveStats
from wavegate_shared.manifest import Manifest
from wavegate_shared.wire import Bench, GoldenResult

__all__ = ["WorkerExit", "WorkerHost", "WorkerSettings"]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the workers of one slot listen and run."""

    unix_path: Path
    tcp_port: int | None = None
    intra_threads: int = 1
    concurrency: int = 2
    nice_candidate: int = 19
    load_timeout_s: float = 60
    memory_limit_mb: int | None = None
    bench_runs: int = 40
    bench_duty: float = 0.1


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

    def __init__(self, slot: str, settings: WorkerSettings) -> None: ...

    @property
    def live_version(self) -> int:
        """The version in charge, 0 when there is none."""
        raise NotImplementedError

    @property
    def crashes(self) -> int:
        """How often a live worker ended by itself; only rises."""
        raise NotImplementedError

    @property
    def tcp_port(self) -> int | None:
        """The TCP port bound on loopback (useful with `tcp_port=0`), None without one."""
        raise NotImplementedError

    @property
    def priority(self) -> str:
        """How the last candidate was held back: `sched_idle`, or `none` where it could not be undone."""
        raise NotImplementedError

    def start_live(self, version_dir: Path, manifest: Manifest) -> None:
        """Start a version at boot. Raises DeviceError."""
        raise NotImplementedError

    def load_candidate(self, version_dir: Path, manifest: Manifest) -> float:
        """Start a candidate beside the live version; returns load time in ms. Raises DeviceError."""
        raise NotImplementedError

    def golden(self) -> GoldenResult:
        """Run the candidate's golden set. Raises DeviceError."""
        raise NotImplementedError

    def bench(self, should_stop: Callable[[], bool]) -> Bench:
        """Measure the candidate beside the live version. Raises DeviceError."""
        raise NotImplementedError

    def swap(self) -> float:
        """Make the candidate live; returns ms. Raises DeviceError `swap_failed`: the old version still serves."""
        raise NotImplementedError

    def revert(self) -> float:
        """Give everything back to the previous version; returns ms."""
        raise NotImplementedError

    def discard_candidate(self) -> None:
        """End the candidate; does nothing when there is none."""
        raise NotImplementedError

    def release_standby(self) -> None:
        """End the standby; its last counts are kept for `collect`."""
        raise NotImplementedError

    def collect(self) -> list[LiveStats]:
        """Counts since the last call, by version."""
        raise NotImplementedError

    def poll(self) -> list[WorkerExit]:
        """Workers that ended by themselves since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """End all workers and the listening sockets."""
        raise NotImplementedError
