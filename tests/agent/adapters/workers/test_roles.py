"""What happens when a live or standby worker dies."""

from pathlib import Path

from tests.support.models import linear_version
from tests.support.serving import Clients, kill, running_host, wait_for_exits
from tests.support.waiting import wait_until
from wavegate_agent.sdk import Client


def test_a_live_worker_that_dies_is_started_again_and_the_sdk_loses_nothing(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        with Clients(tmp_path / "infer.sock", 4) as clients:
            wait_until(lambda: clients.answered > 20)
            before = host.live_pid
            kill(before)
            wait_until(lambda: host.in_charge and host.live_pid != before, "the restart")
            asked = clients.answered
            wait_until(lambda: clients.answered > asked + 20)
        # labels of requests the dead worker answered are lost with it; inferences are not
        assert [fault for fault in clients.faults if not fault.startswith("not_found")] == []
        assert clients.retries <= 4
        assert (host.crashes, host.live_version) == (1, 1)
        assert [(one.version, one.role, one.signal) for one in host.poll()] == [(1, "live", 11)]


def test_a_standby_stands_in_until_the_live_version_is_back(tmp_path: Path) -> None:
    with running_host(tmp_path) as host, Client(tmp_path / "infer.sock", "toy") as client:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2))
        host.swap()
        kill(host.live_pid)
        wait_until(lambda: host.crashes == 1)
        assert client.infer({"x": [[1.0, 1.0, 1.0, 1.0]]}).version == 1
        assert host.live_version == 2
        wait_until(lambda: host.in_charge, "version 2 back")
        assert client.infer({"x": [[1.0, 1.0, 1.0, 1.0]]}).version == 2
        assert host.standby_version == 1
        host.revert()
        assert client.infer({"x": [[1.0, 1.0, 1.0, 1.0]]}).version == 1


def test_reverting_while_the_bad_version_is_down(tmp_path: Path) -> None:
    with running_host(tmp_path) as host, Client(tmp_path / "infer.sock", "toy") as client:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2))
        host.swap()
        kill(host.live_pid)
        wait_until(lambda: host.crashes == 1)
        host.revert()
        assert (host.live_version, host.in_charge) == (1, True)
        assert client.infer({"x": [[1.0, 1.0, 1.0, 1.0]]}).version == 1


def test_a_standby_that_dies_is_told_and_nothing_else_changes(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        first = host.live_pid
        host.load_candidate(*linear_version(tmp_path, 2))
        host.swap()
        kill(first)
        assert [(one.version, one.role) for one in wait_for_exits(host)] == [(1, "standby")]
        assert (host.crashes, host.in_charge, host.standby_version) == (0, True, 0)


def test_a_version_that_dies_again_and_again_is_retried_with_pauses(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        for crash in (1, 2):
            wait_until(lambda: host.in_charge)
            kill(host.live_pid)
            wait_until(lambda crash=crash: host.crashes == crash)  # type: ignore[misc]  # bound per turn
        wait_until(lambda: host.in_charge, "the second restart")
        assert host.crashes == 2
