"""Several models on one device: each has its machine, and an assignment that forgets one is refused."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.agent_world import AgentWorld, RunningAgent
from tests.support.fake_host import FakeHost
from tests.support.tuf_world import make_manifest, slot_of
from wavegate_agent.core.journal_format import SLOT_BYTES
from wavegate_shared.assignment import Probation, Removal, SlotAssignment
from wavegate_shared.manifest import Requires
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import Assign, StateEvent, encode

AT_ONCE = Probation(seconds=0.0, requests=0)
FOR_EVER = Probation(seconds=1e6, requests=10**6, idle_after=None)
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def world() -> AgentWorld:
    made = AgentWorld()
    for number in (1, 2):
        made.release(number)
    return made


@pytest.fixture
def running(tmp_path: Path, world: AgentWorld) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path, world, other=FakeHost()) as made:
        made.install(1)
        yield made


def labels(world: AgentWorld, version: int = 1, **changes: Any) -> SlotAssignment:
    """A released version of the second model, and what a director writes for it."""
    artifacts = [world._artifact("model.onnx", "model", b"l%d" % version * 999)]
    artifacts.append(world._artifact("golden.npz", "golden", b"labels" * 99))
    manifest = make_manifest(version, model="labels", artifacts=artifacts, requires=Requires(memory_mb=30))
    data = world.tuf.publish(manifest, role="release/labels")
    return slot_of(data, model="labels", version=version, **changes)


def pairs(world: AgentWorld, version: int, **changes: Any) -> SlotAssignment:
    """What a director writes for a version of the first model."""
    return slot_of(world.manifests[version], version=version, **changes)


def give(world: AgentWorld, *entries: SlotAssignment, **changes: Any) -> int:
    """Assign these versions, all there is to be on the device."""
    world._seq += 1
    fields: dict[str, Any] = {"probation": AT_ONCE, "rollout": "r-2", **changes}
    slots = {entry.model: entry for entry in entries}
    envelope = world.tuf.assign(None, seq=world._seq, slots=slots, **fields)
    world.desired = encode(Assign(envelope=msgspec.Raw(envelope)))
    world.send_raw(world.desired)
    return world._seq


def active(running: RunningAgent) -> dict[str, int]:
    """Active version by model."""
    slots = running.agent.machines.record.slots
    return {name: slot.active.version for name, slot in slots.items() if slot.active is not None}


def test_a_second_model_comes_beside_the_first(running: RunningAgent, world: AgentWorld) -> None:
    first_said = len(world.reports)
    seq = give(world, pairs(world, 1, seq=1, rollout="r-1"), labels(world))
    report = world.wait_report(seq)
    assert (report.outcome, report.model, report.slot, report.rollout) == (Outcome.PROVEN, "labels", "labels", "r-2")
    assert active(running) == {"pairs": 1, "labels": 1}
    assert [r.model for r in world.reports[first_said:]] == ["labels"], "what did not change is not reported again"
    hello = world.wait(lambda: [h for h in world.hellos if len(h.slots) == 2], "hello")[-1]
    assert {name: slot.version for name, slot in hello.slots.items()} == {"pairs": 1, "labels": 1}
    assert (running.host.live, running.other.live) == (1, 1)  # type: ignore[union-attr]  # the fixture gives one


def test_each_model_goes_back_by_itself(running: RunningAgent, world: AgentWorld) -> None:
    kept = pairs(world, 1, seq=1, rollout="r-1")
    world.wait_report(give(world, kept, labels(world, 1)))
    world.wait_report(give(world, kept, labels(world, 2)))
    report = world.wait_report(give(world, kept, labels(world, 1, allow_older=True)))
    assert (report.outcome, report.active_version) == (Outcome.PROVEN, 1)
    assert active(running) == {"pairs": 1, "labels": 1}
    assert running.host.calls.count("swap 1") == 1


def test_after_a_restart_each_model_serves(running: RunningAgent, world: AgentWorld) -> None:
    world.wait_report(give(world, pairs(world, 1, seq=1, rollout="r-1"), labels(world)))
    running.stop()
    with RunningAgent(running.state, world, FakeHost(), other=FakeHost()) as again:
        assert (again.host.live, again.other.live) == (1, 1)  # type: ignore[union-attr]
        assert active(again) == {"pairs": 1, "labels": 1}


def test_an_assignment_that_leaves_out_a_model_is_refused(running: RunningAgent, world: AgentWorld) -> None:
    give(world, labels(world))
    report = world.wait_code("slot_missing")
    assert (report.outcome, report.active_version) == (Outcome.REFUSED, 1)
    assert "pairs" in report.detail
    assert active(running) == {"pairs": 1}


def test_an_assignment_that_names_a_model_twice_is_refused(running: RunningAgent, world: AgentWorld) -> None:
    slots = {"a": pairs(world, 1), "b": pairs(world, 2)}
    world.send(Assign(envelope=msgspec.Raw(world.tuf.assign(None, seq=9, slots=slots))))
    assert "pairs" in world.wait_code("slot_duplicate").detail
    assert active(running) == {"pairs": 1}


def test_an_empty_assignment_changes_nothing(running: RunningAgent, world: AgentWorld) -> None:
    seq = give(world)
    world.wait(lambda: running.agent.machines.record.last_seq == seq, "the assignment")
    assert active(running) == {"pairs": 1}


def test_a_model_is_taken_away_by_a_signed_removal(running: RunningAgent, world: AgentWorld) -> None:
    world.wait_report(give(world, pairs(world, 1, seq=1), labels(world)))
    seq = world._seq + 1
    give(world, pairs(world, 1, seq=1), removed={"labels": Removal(seq=seq, rollout="r-3")})
    report = world.wait_report(seq)
    assert (report.outcome, report.model, report.rollout, report.active_version) == (
        Outcome.REMOVED,
        "labels",
        "r-3",
        0,
    )
    world.wait(lambda: list(running.agent.machines.record.slots) == ["pairs"], "the end of its slot")
    assert (running.host.closed, running.host.live) == (0, 1)
    assert running.other.closed_now  # type: ignore[union-attr]
    assert len(list((running.state / "models").glob("[0-9a-f]*"))) == 1
    assert not (running.state / "evidence-labels.json").exists()
    hello = world.wait(lambda: [h for h in world.hellos if h.assignment_seq == seq and len(h.slots) == 1], "hello")
    assert list(hello[-1].slots) == ["pairs"]


def test_one_update_at_a_time(running: RunningAgent, world: AgentWorld) -> None:
    """The second waits and says for what; when the first is proven, it begins by itself."""
    world.assign(2, probation=Probation(seconds=0.0, requests=1, idle_after=None))
    world.wait(lambda: running.state_now == "probation", "probation")
    first = world._seq
    seq = give(world, pairs(world, 2, seq=first, rollout="r-1"), labels(world))

    def waiting() -> list[StateEvent]:
        return [m for m in world.said if isinstance(m, StateEvent) and m.code == "update_waits"]

    event = world.wait(waiting, "the word that it waits")[0]
    assert (event.model, event.assignment_seq, event.state) == ("labels", seq, DeviceState.IDLE)
    assert event.detail == "waits for the update of pairs"
    assert running.other.calls == []  # type: ignore[union-attr]
    running.host.serve(2, requests=5)
    assert world.wait_report(first).outcome is Outcome.PROVEN
    assert world.wait_report(seq).outcome is Outcome.PROVEN
    assert active(running) == {"pairs": 2, "labels": 1}


def test_an_update_that_waits_is_there_after_a_power_cut(running: RunningAgent, world: AgentWorld) -> None:
    world.assign(2, probation=FOR_EVER)
    world.wait(lambda: running.state_now == "probation", "probation")
    give(world, pairs(world, 2, seq=world._seq, rollout="r-1"), labels(world))
    world.wait(lambda: "labels" in running.agent.machines.record.slots, "the waiting one")
    running.stop()
    with RunningAgent(running.state, world, running.host, other=FakeHost()) as again:
        slot = again.agent.machines.record.slots["labels"]
        assert (slot.state, slot.pending is not None, slot.active) == (DeviceState.IDLE, True, None)


def test_a_model_withdrawn_before_it_came_never_comes(running: RunningAgent, world: AgentWorld) -> None:
    world.assign(2, probation=FOR_EVER)
    world.wait(lambda: running.state_now == "probation", "probation")
    kept = pairs(world, 2, seq=world._seq, rollout="r-1", probation=FOR_EVER)
    give(world, kept, labels(world))
    world.wait(lambda: "labels" in running.agent.machines.record.slots, "the waiting one")
    give(world, kept, removed={"labels": Removal(seq=world._seq + 1)})
    running.host.serve(2, requests=10**6)
    world.wait(lambda: "labels" in running.agent.machines.record.slots, "the end")
    assert running.other.calls == []  # type: ignore[union-attr]
    assert running.state_now == "probation"


def test_a_model_beyond_the_memory_budget_is_put_off(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world, other=FakeHost(), models_memory_mb=20) as running:
        running.install(1)
        report = world.wait_report(give(world, pairs(world, 1, seq=1), labels(world)))
        assert (report.outcome, report.code) == (Outcome.DEFERRED, "memory_short")
        assert "budget is 20 MB" in report.detail
        assert active(running) == {"pairs": 1}


def test_a_state_directory_of_release_0_1_goes_on(tmp_path: Path, world: AgentWorld) -> None:
    """It was stopped on probation of version 3, with 2 as standby; its only slot was called `main`."""
    with tarfile.open(GOLDEN / "0.1.0" / "state.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    world.offline = True
    with RunningAgent(tmp_path, world) as running:
        slot = world.wait(lambda: running.agent.machines.record.slots.get("pairs"), "the slot")
        assert list(running.agent.machines.record.slots) == ["pairs"]
        versions = [version and version.version for version in (slot.active, slot.standby, slot.spare)]
        assert (slot.state, versions) == (DeviceState.PROBATION, [3, 2, 1])
        world.wait(lambda: running.host.live == 3, "the version that serves")
        assert running.agent.machines.record.last_seq == 3
    assert (tmp_path / "journal").stat().st_size == 2 * SLOT_BYTES
    assert (tmp_path / "evidence-pairs.json").exists()
    assert not (tmp_path / "evidence-main.json").exists()
    assert len(list((tmp_path / "models").glob("[0-9a-f]*"))) == 3, "nothing is downloaded again"
