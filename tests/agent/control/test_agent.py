"""The control process against a server side of real signed objects: the whole way of an assignment, and what may go wrong.

Bad input stands in `test_bad_input.py`.
"""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.agent_checks import LONG, TWENTY, still_good
from tests.support.agent_world import AgentWorld, FakeHost, RunningAgent
from tests.support.tuf_world import DEVICE
from wavegate_agent.adapters.device.status_socket import read_status
from wavegate_agent.control import agent as control_agent
from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import Command, StateEvent

# --- the way of a good version ----------------------------------------------------------------------------------------


def test_a_first_version_goes_all_the_way(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        report = running.install(1)
        assert running.host.live == 1
        world.wait_state(DeviceState.IDLE, 1)
    on_trial = ["offered", "preflight", "fetching", "verifying", "loading", "golden", "bench", "ready", "swapping"]
    assert world.states(1) == [*on_trial, "probation", "committed", "idle"]
    assert (report.outcome, report.code, report.active_version, report.device) == (Outcome.PROVEN, None, 1, DEVICE)
    assert report.golden is not None
    assert report.golden.value == 0.99
    assert report.bench is not None
    assert report.swap_ms == 1.5
    assert report.bytes_fetched == world.models[1].size_bytes


def test_only_what_changed_is_fetched(running: RunningAgent, world: AgentWorld) -> None:
    report = running.install(2)
    vocab = next(a for a in world.models[2].artifacts if a.name == "vocab.txt")
    assert report.bytes_fetched == world.models[2].size_bytes - vocab.size_bytes
    assert running.host.live == 2


def test_a_rollback_to_the_standby_fetches_nothing_and_is_tested_again(
    running: RunningAgent, world: AgentWorld
) -> None:
    running.install(2)
    running.host.calls.clear()
    report = running.install(1, slot={"allow_older": True})
    assert (report.outcome, report.bytes_fetched, report.active_version) == (Outcome.PROVEN, 0, 1)
    assert running.host.calls == ["load 1", "golden 1", "swap 1"]


def test_old_versions_go_when_the_new_one_is_proven(running: RunningAgent, tmp_path: Path, world: AgentWorld) -> None:
    running.install(2)
    running.install(3)
    world.wait(lambda: running.state_now == "idle", "idle")
    names = {entry.name for entry in (tmp_path / "models").iterdir() if entry.name != ".staging"}
    assert names == {world.tuf_digest(2), world.tuf_digest(3)}
    assert list((tmp_path / "models" / ".staging").iterdir()) == []
    assert [p.name for p in tmp_path.glob("assignment-*.json")] == ["assignment-3.json"]


def test_a_probation_is_judged_on_live_requests(running: RunningAgent, world: AgentWorld) -> None:
    seq = world.assign(2, probation=TWENTY)
    world.wait_state(DeviceState.PROBATION, seq)
    running.host.serve(2, 30, latency_ms=7.0)
    report = world.wait_report(seq)
    assert (report.outcome, report.served, report.errors) == (Outcome.PROVEN, 30, 0)
    assert report.p99_ms == pytest.approx(7.0, rel=0.03)


def test_telemetry_is_sent_and_forgotten_when_stored(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world, window_s=0.2) as running:
        running.install(1)
        running.host.serve(1, 12)
        window = world.wait(lambda: [w for w in world.windows if w.requests], "a window")[0]
        assert (window.version, window.requests, window.slot, window.model) == (1, 12, "pairs", "pairs")
        assert window.agent_rss_mb is not None
        world.wait(lambda: running.agent.status()["outbox"] == 0, "an empty outbox")


def test_hello_carries_the_inventory(running: RunningAgent, world: AgentWorld) -> None:
    running.install(2)
    hello = world.wait(
        lambda: [h for h in world.hellos if "pairs" in h.slots and h.slots["pairs"].version == 2], "hello"
    )[-1]
    assert (hello.slots["pairs"].standby_version, hello.assignment_seq, hello.clock) == (1, 2, "ok")
    assert hello.facts["memory_total_mb"]


# --- the network ------------------------------------------------------------------------------------------------------


def test_lost_chunks_are_asked_for_again(running: RunningAgent, world: AgentWorld) -> None:
    lost = {len(world.chunks_sent) + 1, len(world.chunks_sent) + 4}
    world.drop = lambda number: number in lost
    assert running.install(2).outcome is Outcome.PROVEN


def test_a_cut_in_the_middle_costs_only_what_was_under_way(running: RunningAgent, world: AgentWorld) -> None:
    first = len(world.chunks_sent)

    def cut_once(number: int) -> None:
        if number == first + 10:
            world.on_chunk = lambda _: None
            world.cut()

    world.on_chunk = cut_once
    seq = world.assign(2)
    world.wait(lambda: world.offline, "the cut")
    assert running.host.live == 1
    world.reconnect()
    report = world.wait_report(seq)
    assert report.outcome is Outcome.PROVEN
    vocab = next(a for a in world.models[2].artifacts if a.name == "vocab.txt")
    assert report.bytes_fetched == world.models[2].size_bytes - vocab.size_bytes


def test_a_started_install_is_finished_offline(running: RunningAgent, world: AgentWorld) -> None:
    running.host.during["load"] = world.cut
    seq = world.assign(2)
    world.wait(lambda: running.host.live == 2 and running.state_now == "idle", "the swap")
    assert not [r for r in world.reports if r.assignment_seq == seq]
    world.reconnect()
    assert world.wait_report(seq).outcome is Outcome.PROVEN


def test_what_the_server_did_not_store_is_said_again(running: RunningAgent, world: AgentWorld) -> None:
    world.stores = False
    report = running.install(2)
    world.cut()
    world.stores = True
    world.reconnect()
    world.wait(lambda: [r.seq for r in world.reports].count(report.seq) >= 2, "the report again")
    world.wait(lambda: running.agent.status()["outbox"] == 0, "an empty outbox")


def test_a_reconnect_does_not_report_twice(running: RunningAgent, world: AgentWorld) -> None:
    running.install(2)
    world.wait(lambda: running.agent.status()["outbox"] == 0, "an empty outbox")  # what is not stored yet is said again
    count, hellos = len(world.reports), len(world.hellos)
    world.cut()
    world.reconnect()
    world.wait(lambda: len(world.hellos) > hellos, "hello")
    world.send(Command(name="hello"))
    world.wait(lambda: len(world.hellos) > hellos + 1, "another hello")
    assert len(world.reports) == count


# --- newer assignments in the middle ----------------------------------------------------------------------------------


def test_a_newer_assignment_ends_a_fetch(running: RunningAgent, world: AgentWorld) -> None:
    first = len(world.chunks_sent)

    def newer(number: int) -> None:
        if number == first + 5:
            world.on_chunk = lambda _: None
            world.assign(3)

    world.on_chunk = newer
    old = world.assign(2)
    assert world.wait_report(old).code == "superseded"
    assert world.wait_report(old + 1).outcome is Outcome.PROVEN
    assert running.host.live == 3


@pytest.mark.parametrize("during", ["load", "golden", "bench", "swap"])
def test_a_newer_assignment_during_the_trial(running: RunningAgent, world: AgentWorld, during: str) -> None:
    running.host.during[during] = lambda: world.assign(3)
    old = world.assign(2)
    world.wait_report(old)
    assert world.wait_report(old + 1).outcome is Outcome.PROVEN
    assert running.host.live == 3


def test_a_rollback_during_probation_is_a_revert(running: RunningAgent, world: AgentWorld) -> None:
    seq = world.assign(2, probation=LONG)
    world.wait_state(DeviceState.PROBATION, seq)
    running.host.calls.clear()
    report = running.install(1, slot={"allow_older": True})
    assert (report.outcome, report.bytes_fetched, report.active_version) == (Outcome.PROVEN, 0, 1)
    assert running.host.calls == ["revert"]
    assert world.wait_report(seq).code == "superseded"


def test_a_bench_that_is_interrupted_is_no_failure(running: RunningAgent, world: AgentWorld) -> None:
    """The host gives up its bench when something newer waits; a repeat of the same order must not cost the version."""

    def repeated() -> None:
        assert world.desired is not None
        world.send_raw(world.desired)
        world.wait(lambda: running.agent._newer.is_set(), "the repeat")
        raise DeviceError("bench_failed", "stopped before the first pair")

    running.host.during["bench"] = repeated
    assert running.install(2).outcome is Outcome.PROVEN
    assert running.host.calls.count("bench 2") == 2


def test_a_stop_in_the_middle_of_a_trial_is_no_evidence(
    tmp_path: Path, world: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A golden set may take minutes; a stop does not wait for it, and costs the version nothing."""
    monkeypatch.setattr(control_agent, "_GRACE_S", 0.1)
    host = FakeHost()
    with RunningAgent(tmp_path, world, host) as running:
        running.install(1)
    for _ in range(4):
        agent = RunningAgent(tmp_path, world, host)

        def slow(agent: RunningAgent = agent) -> None:
            agent.agent.stop()
            world.wait(lambda: host.closed_now, "the workers ended under it")
            raise DeviceError("candidate_crashed", "the host was closed")

        host.during["golden"] = slow
        host.closed_now = False
        with agent:
            world.assign(2, seq=2)
            world.wait(lambda: "golden" not in host.during, "the golden set")
    with RunningAgent(tmp_path, world, host):
        assert world.wait_report(2).outcome is Outcome.PROVEN


# --- starts and ends --------------------------------------------------------------------------------------------------


def test_a_device_serves_before_and_without_a_network(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
    world.cut()
    with RunningAgent(tmp_path, world, running.host) as again:
        world.wait(lambda: again.host.live == 1, "serving")
        assert not again.agent.status()["connected"]


def test_a_restart_in_probation_watches_again(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
        seq = world.assign(2, probation=TWENTY)
        world.wait_state(DeviceState.PROBATION, seq)
    with RunningAgent(tmp_path, world, running.host) as again:
        world.wait(lambda: again.host.live == 2, "serving")
        world.wait(lambda: again.agent._steps["pairs"].live.trial is not None, "the watch")
        said = world.hellos[-1].slots["pairs"]
        assert (said.version, said.standby_version, said.state) == (2, 1, DeviceState.PROBATION)  # what answers
        again.host.serve(2, 25)
        report = world.wait_report(seq)
    assert report.outcome is Outcome.PROVEN
    assert report.golden is not None, "what was measured before the restart is not forgotten"


def test_an_active_version_damaged_on_disk_is_replaced_by_the_standby(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
        running.install(2)
    model = tmp_path / "models" / world.tuf_digest(2) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with RunningAgent(tmp_path, world, running.host) as again:
        report = world.wait_code("digest_mismatch")
        assert (report.outcome, report.active_version, again.host.live) == (Outcome.REVERTED, 1, 1)


def test_a_device_where_nothing_runs_says_so_and_takes_a_new_version(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
    running.host.fails[1] = "load_failed"
    with RunningAgent(tmp_path, world, running.host) as again:
        assert world.wait_code("broken").outcome is Outcome.BROKEN
        still_good(again)


def test_a_lost_outbox_does_no_harm(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
    for file in tmp_path.glob("outbox.db*"):
        file.unlink()
    count = len(world.reports)
    with RunningAgent(tmp_path, world, running.host):
        world.wait(lambda: len(world.reports) > count, "the report again")
    assert world.reports[-1].outcome is Outcome.PROVEN


def test_a_damaged_outbox_is_replaced(tmp_path: Path, world: AgentWorld) -> None:
    (tmp_path / "outbox.db").write_bytes(b"this is not a database" * 400)
    with RunningAgent(tmp_path, world) as running:
        still_good(running)


def test_status_over_the_socket(running: RunningAgent, tmp_path: Path) -> None:
    status = read_status(tmp_path / "agent.sock")
    assert status["device"] == DEVICE
    assert status["slots"]["pairs"]["serving"] == 1  # type: ignore[index]
    json.dumps(status)


def test_stopping_leaves_nothing_behind(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
    assert running.host.closed >= 1
    assert not (tmp_path / "agent.sock").exists()
    with pytest.raises(UsageError, match="no agent answers"):
        read_status(tmp_path / "agent.sock")


def test_a_device_that_is_not_enrolled_says_what_to_do(tmp_path: Path, world: AgentWorld) -> None:
    (tmp_path / "identity").mkdir()
    with pytest.raises(UsageError, match="enrol this device first"):
        RunningAgent(tmp_path, world)


# --- faults of our own ------------------------------------------------------------------------------------------------


def test_an_unexpected_error_ends_the_assignment_and_not_the_agent(running: RunningAgent, world: AgentWorld) -> None:
    def bug() -> None:
        raise ZeroDivisionError("a bug")

    running.host.during["golden"] = bug
    report = running.install(2)
    assert (report.outcome, report.code) == (Outcome.DEFERRED, "agent_failed")
    assert running.agent.machines.failures == 1
    assert running.host.live == 1
    still_good(running)


def test_importing_the_control_process_brings_nothing_heavy() -> None:
    code = (
        "import sys, wavegate_agent.control.agent; "
        "print([m for m in ('numpy','onnxruntime','httpx','fastapi','sqlmodel','pydantic','typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_progress_of_a_long_fetch_is_told(
    running: RunningAgent, world: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegate_agent.control.slot_work.PROGRESS_S", 0.0)
    seq = world.assign(2)
    world.wait_report(seq)
    shares = [m.progress for m in world.said if isinstance(m, StateEvent) and m.progress is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_wrong_clock_is_put_right_by_the_server(
    tmp_path: Path, world: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's clock is a year behind a signed document it has seen: the server is asked, the install goes on."""
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
    behind = world.tuf.now - timedelta(days=365)
    monkeypatch.setattr("wavegate_agent.adapters.clock.now", lambda: behind)
    world.answers_time = False
    monkeypatch.setattr("wavegate_agent.control.downloads.TIME_WAIT_S", 0.1)
    with RunningAgent(tmp_path, world, running.host) as again:
        world.wait(lambda: world.hellos[-1].clock == "suspect", "the word on the clock")
        report = world.wait_code("clock_untrusted") if world.assign(2) else None
        assert report is not None
        assert (report.outcome, again.host.live) == (Outcome.DEFERRED, 1)
        world.answers_time = True
        assert again.install(3).outcome is Outcome.PROVEN
