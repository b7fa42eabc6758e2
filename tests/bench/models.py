"""Several models on a device: what one model's updates cost another, and what a change of model costs a connection.

Model A (the real address-match) is asked by 12 clients in another process, open loop, while B is updated 60 times and goes back 15
times; requests scheduled while an update is under way are compared with those in between. Then one connection asks two small
models in turn: the first request after a change is compared with the steady ones of the same run. One core may be busy with a
candidate at idle priority all the time an update takes: that is part of what is measured.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.swap import Clients, Segment
from tests.support.models import bundle_version, linear_version
from tests.support.serving import two_hosts
from wavegate_agent.adapters.workers.host import WorkerHost, WorkerSettings
from wavegate_agent.adapters.workers.listening import DeviceSockets, ListeningSockets
from wavegate_agent.sdk import Client

__all__ = ["run"]

_MODEL_DIR = Path("deploy/models/address-match")
_CALLERS = 12
_RATE_PER_S = 60.0
_REVERT_EVERY = 4
_BLOCK = 10
"""Requests to one model before the connection changes to the other."""
_INPUT = {"x": [[1.0, 2.0, 3.0, 4.0]]}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """`dropped`, `other_model_p99_ratio`, `change_model_ratio`, `change_connection_ratio`, `hand_over_ratio`, `same_model_ratio`."""
    updates, asks = (4, 400) if options.quick else (60, 8000)
    with tempfile.TemporaryDirectory() as directory:
        figures = _beside_updates(Path(directory), updates)
    with tempfile.TemporaryDirectory() as directory, two_hosts(Path(directory)):
        return figures | _changing(Path(directory) / "infer.sock", asks)


def _beside_updates(root: Path, updates: int) -> dict[str, float]:
    sockets = DeviceSockets(ListeningSockets(root / "infer.sock", None))
    served = WorkerHost("address-match", WorkerSettings(), sockets)
    updated = WorkerHost("other", WorkerSettings(), sockets)
    versions = [linear_version(root, number, model="other") for number in (1, 2, 3)]
    segment = Segment(_CALLERS)
    try:
        served.start_live(*bundle_version(root, 1, _MODEL_DIR / "bundle"))
        updated.start_live(*versions[0])
        with Clients(root / "infer.sock", _CALLERS, _RATE_PER_S, 1) as clients:
            time.sleep(2.0)
            for turn in range(updates):
                segment.spans.append(_update(updated, versions[(turn + 1) % 3], back=turn % _REVERT_EVERY == 3))
                begin, end = segment.spans[-1]
                time.sleep(max(0.5, 0.6 * (end - begin)))
        segment.records = clients.records
    finally:
        served.close()
        updated.close()
        sockets.close()
    p99 = [statistics.quantiles(segment.latencies(during=during), n=100)[98] for during in (True, False)]
    return {
        "dropped": segment.dropped,
        "other_model_p99_ratio": round(p99[0] / p99[1], 3),
        "requests_during": len(segment.latencies(during=True)),
        "requests_steady": len(segment.latencies(during=False)),
    }


def _update(host: WorkerHost, version: tuple[Path, Any], *, back: bool) -> tuple[float, float]:
    """One update of the other model, with a golden run and, where asked for, the way back; the span it took."""
    start = time.monotonic()
    host.load_candidate(*version)
    host.golden()
    host.swap()
    if back:
        host.revert()
    host.release_standby()
    return start, time.monotonic()


def _changing(socket: Path, asks: int) -> dict[str, float]:
    """Blocks of requests, the model changes with each: 4 blocks on one connection, then 4 on one connection a model, and so on.

    The worker that is changed to was idle for a block both times, so what differs is the hand-over. A first block of four is not
    counted: the connection may not change there.
    """
    one: dict[int, list[float]] = {at: [] for at in range(_BLOCK)}
    two: dict[int, list[float]] = {at: [] for at in range(_BLOCK)}
    with Client(socket, "toy") as both, Client(socket, "toy") as toy, Client(socket, "other") as other:
        for turn in range(asks // _BLOCK):
            alone, first = turn // 4 % 2 == 0, turn % 4 == 0
            both.model = ("toy", "other")[turn % 2]
            client = both if alone else (toy, other)[turn % 2]
            for at in range(_BLOCK):
                start = time.perf_counter()
                client.infer(_INPUT)
                if not first:
                    (one if alone else two)[at].append(time.perf_counter() - start)
    steady = statistics.median(sample for at in range(2, _BLOCK) for sample in one[at])
    change, other_connection = statistics.median(one[0]), statistics.median(two[0])
    return {
        "steady_p50_us": round(steady * 1e6),
        "change_model_ratio": round(change / steady, 3),
        "change_connection_ratio": round(other_connection / steady, 3),
        "hand_over_ratio": round(change / other_connection, 3),
        "same_model_ratio": round(statistics.median(one[2]) / steady, 3),
    }
