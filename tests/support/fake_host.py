"""Workers that load, pass, crash and serve as a test says: the agent's worker host without processes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.probation import OwnAnswer
from wavegate_shared.errors import DeviceError
from wavegate_shared.histogram import Histogram
from wavegate_shared.manifest import Manifest
from wavegate_shared.wire import Bench, GoldenResult

__all__ = ["FakeExit", "FakeHost", "FakeHosts"]


@dataclass
class FakeExit:
    version: int
    role: str
    detail: str = "signal 11"


@dataclass
class FakeHost:
    """Workers that load, pass and crash as the test says. Shared by all runs of an agent, so that a test sees them all."""

    fails: dict[int, str] = field(default_factory=dict)
    golden_value: dict[int, float] = field(default_factory=dict)
    bench_result: Bench = field(default_factory=lambda: Bench(runs=40, p50_ms=2.0, p95_ms=3.0, cpu_ms=2.0))
    during: dict[str, Callable[[], object]] = field(default_factory=dict)
    live: int = 0
    candidate: int = 0
    standby: int = 0
    calls: list[str] = field(default_factory=list)
    exits: list[FakeExit] = field(default_factory=list)
    counts: list[LiveStats] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    own_answer: Callable[[int], OwnAnswer | None] = lambda _: OwnAnswer(failed=False, latency_ms=5.0)
    closed: int = 0
    closed_now: bool = False

    @property
    def live_version(self) -> int:
        return self.live

    def start_live(self, version_dir: Path, manifest: Manifest) -> None:
        self._did(f"start_live {manifest.version}")
        self._check(version_dir, manifest)
        self.live, self.standby = manifest.version, 0

    def load_candidate(self, version_dir: Path, manifest: Manifest) -> float:
        self._did(f"load {manifest.version}")
        self._check(version_dir, manifest)
        self.candidate = manifest.version
        return 12.0

    def load_original(self, version_dir: Path, manifest: Manifest) -> GoldenResult:
        self._did(f"load_original {manifest.version}")
        self._check(version_dir, manifest)
        return GoldenResult(passed=True, value=0.99, limit=0.9, samples=10)

    def golden(self) -> GoldenResult:
        self._did(f"golden {self.candidate}")
        value = self.golden_value.get(self.candidate, 0.99)
        return GoldenResult(passed=value >= 0.9, value=value, limit=0.9, samples=10)

    def bench(self, should_stop: Callable[[], bool]) -> Bench:
        self._did(f"bench {self.candidate}")
        return self.bench_result

    def swap(self) -> float:
        self._did(f"swap {self.candidate}")
        self.live, self.standby, self.candidate = self.candidate, self.live, 0
        return 1.5

    def revert(self) -> float:
        self._did("revert")
        if not self.standby:
            raise DeviceError("swap_failed", "there is no previous version to go back to")
        self.live, self.standby = self.standby, 0
        return 1.0

    def discard_candidate(self) -> None:
        self.candidate = 0

    def release_standby(self) -> None:
        self.standby = 0

    def own_request(self, sample: int) -> OwnAnswer | None:
        self._did(f"own_request {sample}")
        return self.own_answer(sample)

    def collect(self) -> list[LiveStats]:
        with self.lock:
            counts, self.counts = self.counts, []
        return counts

    def poll(self) -> list[FakeExit]:
        with self.lock:
            exits, self.exits = self.exits, []
        return exits

    def close(self) -> None:
        self.closed += 1
        self.closed_now = True
        self.live = self.candidate = self.standby = 0

    def serve(self, version: int, requests: int, *, errors: int = 0, latency_ms: float = 5.0) -> None:
        """Requests were answered."""
        latency = Histogram()
        latency.add(latency_ms, requests)
        with self.lock:
            self.counts.append(LiveStats(version, "pairs", requests, errors, latency, rss_mb=50.0))

    def crash(self, version: int, times: int) -> None:
        """The live worker ended by itself."""
        with self.lock:
            self.exits += [FakeExit(version, "live") for _ in range(times)]

    def _did(self, what: str) -> None:
        self.calls.append(what)
        hook = self.during.pop(what.split()[0], None)
        if hook is not None:
            hook()

    def _check(self, version_dir: Path, manifest: Manifest) -> None:
        assert (version_dir / "model.onnx").stat().st_size == manifest.artifact("model").size_bytes
        code = self.fails.get(manifest.version)
        if code is not None:
            raise DeviceError(code, f"version {manifest.version} was told to fail")


class FakeHosts:
    """One fake host for every model, but for `labels` where it has its own."""

    def __init__(self, host: FakeHost, labels: FakeHost | None = None) -> None:
        self.host, self.labels = host, labels
        self.tcp_port: int | None = None

    def make(self, model: str) -> FakeHost:
        return self.labels if model == "labels" and self.labels is not None else self.host

    def close(self) -> None:
        """Nothing is shared."""
