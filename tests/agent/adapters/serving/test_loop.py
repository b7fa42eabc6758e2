"""The worker process driven through its channel, as the agent does."""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models import linear_version
from tests.support.serving import Raw, kill, request_body, running_host
from tests.support.waiting import wait_until
from wavegate_agent.adapters.workers.host import WorkerHost
from wavegate_shared.errors import DeviceError


@pytest.fixture
def host(tmp_path: Path) -> Iterator[WorkerHost]:
    with running_host(tmp_path, memory_limit_mb=256) as made:
        yield made


def classes(pid: int) -> set[tuple[int, int]]:
    """(policy, nice) of every thread of a process."""
    tids = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return {(os.sched_getscheduler(tid), os.getpriority(os.PRIO_PROCESS, tid)) for tid in tids}


def test_the_live_worker_is_not_left_idle(host: WorkerHost, tmp_path: Path) -> None:
    host.load_candidate(*linear_version(tmp_path, 1))
    pid = host.candidate_pid
    assert pid is not None
    if host.priority == "sched_idle":
        assert classes(pid) == {(os.SCHED_IDLE, 19)}
        assert resource.prlimit(pid, resource.RLIMIT_CPU)[0] != resource.RLIM_INFINITY
    else:
        assert classes(pid) == {(os.SCHED_OTHER, 0)}
    host.swap()
    with Raw(tmp_path / "infer.sock") as raw:
        raw.post("/v2/models/toy/infer", request_body())
    assert host.live_pid == pid
    assert classes(pid) == {(os.SCHED_OTHER, 0)}
    soft, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
    assert soft == hard


def test_a_worker_ends_when_its_agent_is_gone(tmp_path: Path) -> None:
    """Also in the middle of a load that never ends: nothing is left behind by a killed agent."""
    import subprocess
    import sys

    code = (
        "import sys, threading\nfrom pathlib import Path\n"
        "from wavegate_agent.adapters.workers.host import WorkerHost, WorkerSettings\n"
        "from wavegate_agent.adapters.workers.listening import DeviceSockets, ListeningSockets\n"
        "from wavegate_shared.manifest import decode_manifest\n"
        "sockets = DeviceSockets(ListeningSockets(Path(sys.argv[1]) / 'infer.sock', None))\n"
        "host = WorkerHost('main', WorkerSettings(), sockets)\n"
        "def load(d): host.load_candidate(Path(d), decode_manifest((Path(d) / 'manifest.json').read_bytes()))\n"
        "threading.Thread(target=load, args=(sys.argv[2],), daemon=True).start()\n"
        "while host.candidate_pid is None: pass\n"
        "print(host.candidate_pid, flush=True)\nsys.stdin.read()\n"
    )
    directory, _ = linear_version(tmp_path, 1, hang=True)
    agent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/task")) > 1, "the load")
        agent.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the worker")


def test_a_worker_ignores_a_signal_meant_for_the_agent(host: WorkerHost, tmp_path: Path) -> None:
    host.start_live(*linear_version(tmp_path, 1))
    for number in (signal.SIGINT, signal.SIGTERM):
        kill(host.live_pid, number)
    with Raw(tmp_path / "infer.sock") as raw:
        assert raw.get("/v2/health/live")[0] == 200
    assert host.poll() == []


def test_memory_beyond_the_limit_is_refused_not_killed(tmp_path: Path) -> None:
    directory, manifest = linear_version(tmp_path, 1, hidden=1500, layers=3)
    with running_host(tmp_path, memory_limit_mb=8) as host:
        with pytest.raises(DeviceError) as short:
            host.start_live(directory, manifest)
        assert short.value.code == "memory_short"
