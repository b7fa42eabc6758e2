"""Hot swap under live load: dropped requests, and p99 while a swap is on its way against steady p99 in the same run.

The real address-match model, the real host and workers, clients in another process with open-loop Poisson arrivals. One
run swaps at 1, 4 and 12 clients in turn; broken candidates (garbage, a golden set that fails, a process that dies while
loading) are among them. A request counts as "during" when it was scheduled between the start of the candidate's process
and 100 ms after the old worker is gone. `dropped` counts lost or wrong answers and also connections that had to be opened
again, which the SDK would have hidden.

Then the live worker is killed with SIGSEGV while a standby is loaded, as in probation (`crash_*`), and once without one.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.models import bundle_version
from wavegate_agent.adapters.workers.host import WorkerHost, WorkerSettings
from wavegate_agent.adapters.workers.listening import DeviceSockets, ListeningSockets
from wavegate_agent.sdk import Client
from wavegate_shared.errors import DeviceError
from wavegate_shared.manifest import Manifest

_MODEL_DIR = Path("deploy/models/address-match")
_CLIENTS = (1, 4, 12)
_MOST_PER_S = 60.0
_BUSY_SHARE = 0.2
"""Arrivals per second times the time one request takes: well below saturation, on any machine."""
_AFTER_S = 0.1
_WARM_S = 1.0
_GAP_S = 0.6
_GAP_SHARE = 0.6
_LONGEST_GAP_S = 6.0
"""A span is followed by steady time in proportion: a busy machine stretches spans, and would be counted in them alone."""
_GOLDEN_EVERY = 4
_BROKEN_EVERY = 8
_CRASHES = 3

Version = tuple[Path, Manifest]


@dataclass(slots=True)
class Segment:
    """One client count in one run: its requests, and the spans of its swaps."""

    clients: int
    records: list[list[float]] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)

    def latencies(self, *, during: bool) -> list[float]:
        """Latencies of requests scheduled inside (or outside) the spans; the first second is left out."""
        start = min(record[0] for record in self.records) + _WARM_S
        return [
            latency
            for at, latency, _, _ in self.records
            if at > start and any(a <= at <= b for a, b in self.spans) is during
        ]

    @property
    def dropped(self) -> int:
        """Lost or wrong answers, and connections opened again."""
        return int(sum(lost + retries for _, _, lost, retries in self.records))


class Clients:
    """The load process, for a `with` block; `records` are there afterwards."""

    def __init__(self, socket: Path, clients: int, rate: float, seed: int) -> None:
        self.records: list[list[float]] = []
        arguments = [
            str(socket),
            "address-match",
            str(_MODEL_DIR / "traffic.jsonl"),
            str(clients),
            str(rate),
            str(seed),
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench._open_loop", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *exc: object) -> None:
        output, _ = self._process.communicate()
        self.records = json.loads(output)


class Rig:
    """A host with good and broken versions."""

    def __init__(self, root: Path) -> None:
        self.versions = [bundle_version(root, number, _MODEL_DIR / "bundle") for number in (1, 2)]
        self.garbage = bundle_version(root, 90, _MODEL_DIR / "bundle")
        (self.garbage[0] / "model.onnx").write_bytes(b"\x08\x08garbage" * 5000)
        self.failing = bundle_version(root, 91, _MODEL_DIR / "bundle")
        self.socket = root / "infer.sock"
        self.host = WorkerHost("bench", WorkerSettings(), DeviceSockets(ListeningSockets(self.socket, None)))
        self.host.start_live(*self.versions[0])
        self.swaps = 0
        self.broken = 0
        self.swap_ms: list[float] = []
        self.rate = self._calibrated()

    def _calibrated(self) -> float:
        """Arrivals per second that keep one worker as busy as `_BUSY_SHARE` says."""
        times = []
        with Client(self.socket, "address-match") as client:
            for _ in range(100):
                start = time.monotonic()
                client.infer_text_pairs([("12 high street newtown", "12 high st new town")])
                times.append(time.monotonic() - start)
        return min(_MOST_PER_S, _BUSY_SHARE / statistics.median(times))

    def swap(self) -> tuple[float, float]:
        """One swap, now and then with a golden run; the span it took."""
        start = time.monotonic()
        self.host.load_candidate(*self.versions[(self.swaps + 1) % 2])
        if self.swaps % _GOLDEN_EVERY == 0:
            self.host.golden()
        self.swap_ms.append(self.host.swap())
        self.host.release_standby()
        self.swaps += 1
        return start, time.monotonic() + _AFTER_S

    def fail(self) -> tuple[float, float]:
        """One broken candidate; the span it took."""
        start = time.monotonic()
        with contextlib.suppress(DeviceError):
            if self.broken % 2:
                self._die_while_loading()
            else:
                self.host.load_candidate(*self.garbage)
        self.host.discard_candidate()
        self.broken += 1
        return start, time.monotonic() + _AFTER_S

    def _die_while_loading(self) -> None:
        def kill() -> None:
            while (pid := self.host.candidate_pid) is None:
                time.sleep(0.005)
            time.sleep(0.3)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSEGV)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            self.host.load_candidate(*self.failing)
        finally:
            killer.join()

    def crash(self) -> tuple[float, float]:
        """Kill the worker that serves; the span until it is back in charge."""
        start, before, pid = time.monotonic(), self.host.crashes, self.host.live_pid
        if pid is None:
            raise RuntimeError("nothing serves")
        os.kill(pid, signal.SIGSEGV)
        end = time.monotonic() + 20
        while time.monotonic() < end and (self.host.crashes == before or not self.host.in_charge):
            time.sleep(0.005)
        return start, time.monotonic() + _AFTER_S


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures; ratios are medians over the runs."""
    runs, swaps = (1, 2) if options.quick else (5, 7)
    with tempfile.TemporaryDirectory() as scratch:
        rig = Rig(Path(scratch))
        try:
            segments = [
                [_segment(rig, clients, swaps, seed=100 * run + clients) for clients in _CLIENTS] for run in range(runs)
            ]
            figures = _figures(rig, segments)
            figures.update(_crash_figures(rig))
        finally:
            rig.host.close()
    return figures


def _segment(rig: Rig, clients: int, swaps: int, seed: int) -> Segment:
    segment = Segment(clients)
    with Clients(rig.socket, clients, rig.rate, seed) as load:
        time.sleep(_WARM_S + 2 * _GAP_S)
        for _ in range(swaps):
            segment.spans.append(rig.swap())
            _rest(segment)
            if rig.swaps % _BROKEN_EVERY == 0:
                segment.spans.append(rig.fail())
                _rest(segment)
    segment.records = load.records
    return segment


def _rest(segment: Segment) -> None:
    start, end = segment.spans[-1]
    time.sleep(min(_LONGEST_GAP_S, max(_GAP_S, _GAP_SHARE * (end - start))))


def _figures(rig: Rig, runs: list[list[Segment]]) -> dict[str, Any]:
    every = [segment for segments in runs for segment in segments]
    figures: dict[str, Any] = {
        "dropped": sum(segment.dropped for segment in every),
        "swaps": rig.swaps,
        "broken_candidates": rig.broken,
        "requests": sum(len(segment.records) for segment in every),
        "requests_during": sum(len(segment.latencies(during=True)) for segment in every),
        "p99_ratio": round(statistics.median(_ratio(segments) for segments in runs), 3),
    }
    for clients in _CLIENTS:
        ratios = [_ratio([one]) for segments in runs for one in segments if one.clients == clients]
        figures[f"p99_ratio_c{clients}"] = round(statistics.median(ratios), 3)
    steady = [latency for segment in every for latency in segment.latencies(during=False)]
    during = [latency for segment in every for latency in segment.latencies(during=True)]
    figures |= {
        "p50_ratio": round(_quantile(during, 0.5) / _quantile(steady, 0.5), 3),
        "p99_ratio_pooled": round(_quantile(during, 0.99) / _quantile(steady, 0.99), 3),
        "p99_steady_ms": round(_quantile(steady, 0.99), 2),
        "rate_per_s": round(rig.rate, 1),
        "swap_ms_median": round(statistics.median(rig.swap_ms), 1),
    }
    return figures


def _crash_figures(rig: Rig) -> dict[str, Any]:
    rig.host.load_candidate(*rig.versions[0])
    rig.host.swap()  # the other one stays as standby, as in probation
    covered = _crashes(rig, _CRASHES, seed=1)
    rig.host.release_standby()
    alone = _crashes(rig, 1, seed=2)
    steady = _quantile(covered.latencies(during=False), 0.99)
    return {
        "crash_lost": int(sum(record[2] for record in (*covered.records, *alone.records))),
        "crash_gap_ratio": round(_worst(covered) / steady, 2),
        "crash_gap_ratio_no_standby": round(_worst(alone) / steady, 2),
    }


def _crashes(rig: Rig, count: int, seed: int) -> Segment:
    segment = Segment(4)
    with Clients(rig.socket, 4, rig.rate, seed) as load:
        time.sleep(_WARM_S + 3.0)
        for _ in range(count):
            segment.spans.append(rig.crash())
            time.sleep(2.0)
    segment.records = load.records
    return segment


def _worst(segment: Segment) -> float:
    """The longest anyone waited because of a crash: the median over crashes of the worst latency in each span."""
    spans = [[latency for at, latency, _, _ in segment.records if a - 0.2 <= at <= b] for a, b in segment.spans]
    return statistics.median(max(latencies) for latencies in spans if latencies)


def _ratio(segments: list[Segment]) -> float:
    during = [latency for segment in segments for latency in segment.latencies(during=True)]
    steady = [latency for segment in segments for latency in segment.latencies(during=False)]
    return _quantile(during, 0.99) / _quantile(steady, 0.99)


def _quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
