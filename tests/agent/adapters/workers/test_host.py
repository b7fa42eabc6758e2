"""The host with real worker processes: start, test, swap, revert, count; and every way a candidate can be broken."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import linear_version, text_version
from tests.support.serving import Clients, Raw, kill, request_body, running_host, wait_for_exits
from tests.support.waiting import wait_until
from wavegate_agent.sdk import Client
from wavegate_shared.errors import DeviceError
from wavegate_shared.manifest import Requires


def ask(host_dir: Path) -> int:
    """The version that answers."""
    with Client(host_dir / "infer.sock", "toy") as client:
        return client.infer({"x": [[1.0, 2.0, 3.0, 4.0]]}).version


def test_the_life_of_two_versions(tmp_path: Path) -> None:
    with running_host(tmp_path, bench_runs=4) as host:
        assert host.live_version == 0
        host.start_live(*linear_version(tmp_path, 1))
        assert (host.live_version, ask(tmp_path)) == (1, 1)
        assert host.load_candidate(*linear_version(tmp_path, 2)) > 0
        golden = host.golden()
        assert (golden.passed, golden.value, golden.samples, golden.max_difference) == (True, 1.0, 24, 0.0)
        bench = host.bench(lambda: False)
        assert bench.runs == 4
        assert bench.cpu_ratio is not None
        assert bench.cpu_ratio > 0
        assert host.swap() > 0
        assert (host.live_version, host.standby_version, ask(tmp_path)) == (2, 1, 2)
        assert host.revert() > 0
        assert (host.live_version, host.standby_version, ask(tmp_path)) == (1, 0, 1)
        assert host.poll() == []
        assert host.crashes == 0


def test_no_request_and_no_count_is_lost_over_swaps_and_reverts(tmp_path: Path) -> None:
    versions = [linear_version(tmp_path, number, hidden=64, layers=4) for number in (1, 2, 3)]
    with running_host(tmp_path) as host:
        host.start_live(*versions[0])
        with (
            Clients(tmp_path / "infer.sock", 3) as local,
            Clients(("127.0.0.1", host.tcp_port or 0), 1) as remote,
        ):
            for turn in range(8):
                host.load_candidate(*versions[(turn + 1) % 3])
                host.swap()
                if turn % 4 == 3:
                    host.revert()
                host.release_standby()
        stats = host.collect()
    asked = local.answered + remote.answered
    assert local.faults == remote.faults == []
    assert local.retries == remote.retries == 0
    assert local.versions == {1, 2, 3}
    assert sum(one.requests for one in stats) == sum(one.latency.count for one in stats) == asked
    assert sum(one.score_count for one in stats) == sum(one.score_sum for one in stats) == asked
    assert sum(one.errors for one in stats) == 0


def test_a_label_counts_for_the_version_that_answered(tmp_path: Path) -> None:
    with running_host(tmp_path) as host, Client(tmp_path / "infer.sock", "toy") as client:
        host.start_live(*linear_version(tmp_path, 1))
        client.infer({"x": [[1.0, 1.0, 1.0, 1.0]]}, request_id="old")
        host.load_candidate(*linear_version(tmp_path, 2))
        host.swap()
        client.infer({"x": [[1.0, 1.0, 1.0, 1.0]]}, request_id="new")
        assert client.feedback("old", 0).version == 1
        assert client.feedback("new", 1).version == 2
        host.release_standby()
        scores = {one.version: (one.score_sum, one.score_count) for one in host.collect()}
        assert scores == {1: (0.0, 1), 2: (1.0, 1)}
        assert client.feedback("old", 0).repeated
        assert sum(one.score_count for one in host.collect()) == 0


def test_idle_and_half_sent_connections_move_too(tmp_path: Path) -> None:
    body = request_body(request_id="r")
    head = f"POST /v2/models/toy/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        with (
            Raw(tmp_path / "infer.sock") as idle,
            Raw(tmp_path / "infer.sock") as half,
            Raw(tmp_path / "infer.sock") as late,
        ):
            assert idle.get("/v2/health/ready")[0] == 200
            half.send(head[:30])
            late.send(head + body[:10])
            host.load_candidate(*linear_version(tmp_path, 2))
            threading.Timer(0.3, lambda: late.send(body[10:])).start()
            host.swap()
            half.send(head[30:] + body)
            assert half.read()[1]["x-wavegate-model-version"] == "2"
            assert late.read()[1]["x-wavegate-model-version"] == "1"
            assert late.get("/v2/models/toy")[2]["versions"] == ["2"]
            assert idle.get("/v2/models/toy")[2]["versions"] == ["2"]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "garbage": ({"model_bytes": b"\x08\x08not a model at all"}, "model_rejected"),
    "empty": ({"model_bytes": b""}, "model_rejected"),
    "needs a provider": ({"requires": Requires(providers=["CUDAExecutionProvider"])}, "incompatible"),
    "needs more memory than there is": ({"requires": Requires(memory_mb=1 << 30)}, "memory_short"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_candidate_is_refused_and_the_live_version_serves_on(tmp_path: Path, case: str) -> None:
    changes, code = BROKEN[case]
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        with Clients(tmp_path / "infer.sock", 2) as clients:
            with pytest.raises(DeviceError) as refused:
                host.load_candidate(*linear_version(tmp_path, 2, **changes))
            with pytest.raises(DeviceError) as nothing:
                host.swap()
        assert (refused.value.code, nothing.value.code) == (code, "candidate_crashed")
        assert (clients.faults, clients.retries, clients.versions) == ([], 0, {1})
        assert host.poll() == []


def test_a_candidate_that_hangs_while_loading_is_ended(tmp_path: Path) -> None:
    with running_host(tmp_path, load_timeout_s=2) as host:
        with pytest.raises(DeviceError, match="within 2 s") as hung:
            host.load_candidate(*linear_version(tmp_path, 2, hang=True))
        assert hung.value.code == "load_failed"
        assert (host.candidate_pid, host.poll()) == (None, [])


def test_a_file_changed_on_disk_is_not_loaded(tmp_path: Path) -> None:
    directory, manifest = linear_version(tmp_path, 2)
    data = bytearray((directory / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (directory / "model.onnx").write_bytes(data)
    with running_host(tmp_path) as host, pytest.raises(DeviceError, match="not the signed file") as tampered:
        host.start_live(directory, manifest)
    assert tampered.value.code == "load_failed"


@pytest.mark.parametrize("fault", ["flip", "nan"])
def test_a_wrong_candidate_fails_its_golden_set(tmp_path: Path, fault: str) -> None:
    directory, manifest = linear_version(tmp_path, 2, flip=fault == "flip", nan=fault == "nan")
    with running_host(tmp_path) as host:
        host.load_candidate(directory, manifest)
        golden = host.golden()
        assert not golden.passed
        assert golden.value == (0.0 if fault == "flip" else None)


def test_a_candidate_that_dies_while_loading(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))

        def end_it() -> None:
            wait_until(lambda: host.candidate_pid is not None)
            kill(host.candidate_pid)

        killer = threading.Thread(target=end_it)
        killer.start()
        with pytest.raises(DeviceError, match="SIGSEGV") as crashed:
            host.load_candidate(*linear_version(tmp_path, 2, hang=True))
        killer.join()
        assert crashed.value.code == "candidate_crashed"
        assert ask(tmp_path) == 1
        assert [(one.version, one.role, one.signal) for one in host.poll()] == [(2, "candidate", 11)]
        assert host.crashes == 0


def test_a_loaded_candidate_that_dies_is_noticed_at_the_next_step(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2))
        kill(host.candidate_pid)
        wait_for_exits(host)
        for step in (host.golden, lambda: host.bench(lambda: False), host.swap):
            with pytest.raises(DeviceError) as crashed:
                step()
            assert crashed.value.code == "candidate_crashed"
        assert ask(tmp_path) == 1


def test_a_candidate_that_stops_at_the_swap_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr("wavegate_agent.adapters.workers.host._CALL_S", 0.5)
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        with Clients(tmp_path / "infer.sock", 2) as clients:
            host.load_candidate(*linear_version(tmp_path, 2))
            kill(host.candidate_pid, signal.SIGSTOP)
            with pytest.raises(DeviceError) as failed:
                host.swap()
            asked = clients.answered
            wait_until(lambda: clients.answered > asked, "serving on")
        assert failed.value.code == "swap_failed"
        assert (host.live_version, host.candidate_pid) == (1, None)
        assert clients.faults == []
        assert clients.retries == 0


def test_revert_loads_the_previous_version_when_the_standby_is_gone(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        with pytest.raises(DeviceError) as none:
            host.revert()
        assert none.value.code == "swap_failed"
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2))
        host.swap()
        host.release_standby()
        host.revert()
        assert ask(tmp_path) == 1
        assert host.standby_version == 0


def test_bench_stops_when_told(tmp_path: Path) -> None:
    with running_host(tmp_path, bench_runs=1000) as host:
        host.start_live(*linear_version(tmp_path, 1))
        host.load_candidate(*linear_version(tmp_path, 2))
        answers = iter([False, False, True])
        assert host.bench(lambda: next(answers)).runs <= 2
        with pytest.raises(DeviceError) as stopped:
            host.bench(lambda: True)
        assert stopped.value.code == "bench_failed"


def test_the_first_version_is_benched_alone(tmp_path: Path) -> None:
    with running_host(tmp_path, bench_runs=3) as host:
        host.load_candidate(*text_version(tmp_path, 1))
        bench = host.bench(lambda: False)
        assert (bench.runs, bench.cpu_ratio, bench.active_p50_ms) == (3, None, None)
        host.swap()
        with Client(tmp_path / "infer.sock", "toy") as client:
            assert client.infer_text_pairs([("abc", "abcdefgh")]).values("logits") == [-6.0, 6.0]


def test_two_agents_cannot_share_a_socket(tmp_path: Path) -> None:
    from wavegate_agent.adapters.workers.listening import ListeningSockets

    with running_host(tmp_path), pytest.raises(OSError, match="in use"):
        ListeningSockets(tmp_path / "infer.sock", None)
