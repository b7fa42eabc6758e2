"""The agent's own requests on a real worker: answered like an application's, counted nowhere."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.models import linear_version, text_version
from tests.support.serving import Raw, kill, request_body, running_host, wait_for_exits
from tests.support.waiting import wait_until
from wavegate_agent.adapters.workers.host import WorkerHost
from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.oip import OWN_FIELD
from wavegate_shared.manifest import Manifest

LINEAR = request_body()
TEXT = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]}]}).encode()


def counted(host: WorkerHost, requests: int) -> tuple[int, int, int, int]:
    """Requests, errors, latencies and scores that the host has counted, once it has counted as many requests as that.

    A request is counted after its answer; those of one worker in their order.
    """
    seen: list[LiveStats] = []

    def enough() -> bool:
        seen.extend(host.collect())
        return sum(one.requests for one in seen) >= requests

    wait_until(enough, f"{requests} requests to be counted", timeout_s=10)
    return (
        sum(one.requests for one in seen),
        sum(one.errors for one in seen),
        sum(one.latency.count for one in seen),
        sum(one.score_count for one in seen),
    )


def ask(directory: Path, body: bytes = LINEAR) -> None:
    """One request of an application."""
    with Raw(directory / "infer.sock") as raw:
        assert raw.post("/v2/models/toy/infer", body)[0] == 200


@pytest.mark.parametrize(("make", "body"), [(linear_version, LINEAR), (text_version, TEXT)])
def test_own_requests_are_answered_and_counted_nowhere(
    tmp_path: Path, make: Callable[[Path, int], tuple[Path, Manifest]], body: bytes
) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*make(tmp_path, 1))
        answers = [host.own_request(sample) for sample in range(30)]  # more than there are samples
        assert all(answer is not None and not answer.failed for answer in answers)
        assert all(answer.latency_ms is not None and 0 < answer.latency_ms < 10_000 for answer in answers if answer)
        ask(tmp_path, body)  # counted after them
        assert counted(host, 1) == (1, 0, 1, 0)


def test_live_requests_beside_them_are_counted(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        with Raw(tmp_path / "infer.sock") as raw:
            for sample in range(3):
                assert host.own_request(sample) is not None
                assert raw.post("/v2/models/toy/infer", request_body())[0] == 200
        assert counted(host, 3)[:3] == (3, 0, 3)


def test_a_mark_that_the_worker_did_not_make_is_refused(tmp_path: Path) -> None:
    with running_host(tmp_path) as host, Raw(tmp_path / "infer.sock") as raw:
        host.start_live(*linear_version(tmp_path, 1))
        status, _, answer = raw.post("/v2/models/toy/infer", request_body(), **{OWN_FIELD.replace("-", "_"): "me"})
        assert (status, answer["code"]) == (400, "invalid")
        assert raw.post("/v2/models/toy/infer", request_body())[0] == 200  # the connection stays


def test_nothing_is_said_about_a_version_that_does_not_serve(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        assert host.own_request(0) is None
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2))
        host.swap()
        kill(host.live_pid)
        wait_for_exits(host)  # until it is started again, the standby serves
        assert host.own_request(0) is None or host.in_charge
        ask(tmp_path)
        assert counted(host, 1) == (1, 0, 1, 0)
