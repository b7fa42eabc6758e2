"""A candidate that is only to be measured: it comes, is measured beside the original, and is gone; the device serves on.

The agent is real, its workers are told what to say (`FakeHost`); real workers are in `adapters/test_bench_driver.py`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.agent_world import AgentWorld, RunningAgent, enrolled
from tests.support.tuf_world import slot_of
from wavegate_shared.assignment import Beside, SlotAssignment
from wavegate_shared.manifest import Manifest
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import Assign, Report, encode

ORIGINAL, SMALL, OTHER = 1_000_000, 1_000_001, 1_000_002


@pytest.fixture
def world() -> AgentWorld:
    made = AgentWorld()
    made.release(1)
    made.release(2)
    for number in (ORIGINAL, SMALL, OTHER):
        candidate(made, number)
    return made


@pytest.fixture
def running(tmp_path: Path, world: AgentWorld) -> Iterator[RunningAgent]:
    world.device_key = enrolled(tmp_path, world.tuf, bench=True)
    with RunningAgent(tmp_path, world) as made:
        made.install(1)
        yield made


def path(number: int) -> str:
    return f"bench/arm/c{number}.json"


def candidate(world: AgentWorld, number: int, **changes: Any) -> Manifest:
    """Sign a candidate by the bench role."""
    model = world.release(number, bench_only=True, **changes)
    world.manifests[number] = world.tuf.publish(model, role="bench/arm", path=path(number))
    return model


def assigned(world: AgentWorld, number: int, **changes: Any) -> SlotAssignment:
    original = slot_of(world.manifests[ORIGINAL], version=ORIGINAL, target=path(ORIGINAL))
    fields = ("model", "target", "length", "sha256", "release_seq")
    beside = Beside(**{name: getattr(original, name) for name in fields})
    more: dict[str, Any] = {"target": path(number), "beside": beside, **changes}
    return slot_of(world.manifests[number], version=number, **more)


def give(world: AgentWorld, slot: SlotAssignment) -> int:
    world._seq += 1
    world.desired = encode(Assign(envelope=msgspec.Raw(world.tuf.assign(slot, seq=world._seq))))
    world.send_raw(world.desired)
    return world._seq


def bench(running: RunningAgent, number: int, **changes: Any) -> Report:
    world = running.world
    report = world.wait_report(give(world, assigned(world, number, **changes)))
    world.wait_state(DeviceState.IDLE, report.assignment_seq)
    return report


def still_serves(running: RunningAgent, version: int = 1) -> None:
    assert running.host.live == version
    running.world.wait(lambda: running.host.candidate == 0, "the end of the candidate, which follows its report")
    assert running.agent.machines.slot("pairs").active.version == version  # type: ignore[union-attr]  # it has one


def test_a_candidate_is_measured_beside_the_original_and_gone(running: RunningAgent, world: AgentWorld) -> None:
    report = bench(running, SMALL)
    assert (report.outcome, report.code, report.version, report.active_version) == (Outcome.BENCHED, None, SMALL, 1)
    assert report.bench is not None
    assert report.golden is not None
    assert report.sha256 == world.tuf_digest(SMALL)
    chain = ["offered", "preflight", "fetching", "verifying", "loading", "golden", "bench", "discarding", "idle"]
    assert world.states(report.assignment_seq) == chain
    assert running.host.calls[-4:] == [
        f"load {SMALL}",
        f"load_original {ORIGINAL}",
        f"golden {SMALL}",
        f"bench {SMALL}",
    ]
    still_serves(running)
    assert running.install(2).outcome is Outcome.PROVEN  # the next assignment works


def test_the_original_is_fetched_once_a_round_and_gone_after_it(running: RunningAgent, world: AgentWorld) -> None:
    first = bench(running, SMALL)
    again = bench(running, OTHER)
    models = [world.models[number].artifact("model") for number in (ORIGINAL, SMALL, OTHER)]
    sent = {sha256 for sha256, _ in world.chunks_sent}
    assert {model.sha256 for model in models} <= sent
    assert (
        again.bytes_fetched == first.bytes_fetched - world.models[ORIGINAL].size_bytes + 3000
    )  # its vocabulary is shared
    kept = {world.tuf_digest(1), world.tuf_digest(ORIGINAL)}
    assert {entry.name for entry in (running.state / "models").iterdir() if entry.name != ".staging"} == kept
    assert running.install(2).outcome is Outcome.PROVEN
    world.wait(lambda: not (running.state / "models" / world.tuf_digest(ORIGINAL)).exists(), "the original goes")


def test_a_candidate_that_fails_is_reported_and_quarantines_nothing(running: RunningAgent, world: AgentWorld) -> None:
    running.host.golden_value[SMALL] = 0.2
    assert bench(running, SMALL).code == "golden_failed"
    running.host.fails[OTHER] = "load_failed"
    assert bench(running, OTHER).code == "load_failed"
    assert running.agent.machines.record.quarantined == ()
    still_serves(running)


def test_an_original_that_does_not_run_is_not_the_candidates_fault(running: RunningAgent) -> None:
    running.host.fails[ORIGINAL] = "load_failed"
    report = bench(running, SMALL)
    assert (report.outcome, report.code) == (Outcome.REFUSED, "load_failed")
    still_serves(running)


def as_a_release(world: AgentWorld) -> SlotAssignment:
    return slot_of(world.manifests[SMALL], version=SMALL)


def as_a_rollback(world: AgentWorld) -> SlotAssignment:
    return assigned(world, SMALL, allow_older=True)


def as_an_override(world: AgentWorld) -> SlotAssignment:
    return assigned(world, SMALL, override_quarantine=True)


@pytest.mark.parametrize("lie", [as_a_release, as_a_rollback, as_an_override])
def test_no_word_of_a_director_lets_a_candidate_serve(
    running: RunningAgent, world: AgentWorld, lie: Callable[[AgentWorld], SlotAssignment]
) -> None:
    report = world.wait_report(give(world, lie(world)))
    assert report.outcome in (Outcome.BENCHED, Outcome.REFUSED)
    assert f"swap {SMALL}" not in running.host.calls
    still_serves(running)


def test_an_order_that_changes_its_word_half_way_does_not_either(running: RunningAgent, world: AgentWorld) -> None:
    """First to be measured, then, while it is loaded, the same bytes as a release: the second is a new order, and refused."""
    running.host.during["golden"] = lambda: give(world, as_a_release(world))
    first = give(world, assigned(world, SMALL))
    assert world.wait_report(first).code == "superseded"
    assert world.wait_report(first + 1).code in ("version_not_listed", "bench_only", "manifest_invalid")
    assert f"swap {SMALL}" not in running.host.calls
    still_serves(running)


def test_a_measurement_waits_for_the_update_in_hand(running: RunningAgent, world: AgentWorld) -> None:
    running.host.during["golden"] = lambda: give(world, assigned(world, SMALL))
    assert running.install(2).outcome is Outcome.PROVEN
    assert world.wait_report(world._seq).outcome is Outcome.BENCHED
    still_serves(running, 2)


def test_an_update_does_not_wait_for_a_measurement(running: RunningAgent, world: AgentWorld) -> None:
    running.host.during["bench"] = lambda: world.assign(2)
    first = give(world, assigned(world, SMALL))
    assert world.wait_report(first).outcome in (Outcome.REFUSED, Outcome.BENCHED)
    assert world.wait_report(first + 1).outcome is Outcome.PROVEN


@pytest.mark.parametrize("during", ["load", "load_original", "golden", "bench"])
def test_a_power_cut_in_the_middle_loses_nothing(tmp_path: Path, world: AgentWorld, during: str) -> None:
    world.device_key = enrolled(tmp_path, world.tuf, bench=True)
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
        host = running.host
        seen: list[str] = []

        def cut() -> None:
            seen.append(during)
            running.agent._stopping.set()

        host.during[during] = cut
        seq = give(world, assigned(world, SMALL))
        world.wait(lambda: seen, "the cut")
    with RunningAgent(tmp_path, world, host) as again:
        assert "start_live 1" in host.calls
        assert world.wait_report(seq).outcome is Outcome.BENCHED
        world.wait(lambda: again.state_now == "idle")
        still_serves(again)


def test_a_device_that_is_not_enrolled_for_it_refuses(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
        report = bench(running, SMALL)
        assert (report.outcome, report.code) == (Outcome.REFUSED, "bench_only")
        still_serves(running)


def test_a_release_key_signs_no_candidate_and_a_bench_key_no_release(running: RunningAgent, world: AgentWorld) -> None:
    world.release(7)
    world.manifests[7] = world.tuf.publish(world.models[7], role="bench/arm", path=path(7))
    assert bench(running, 7).code == "bench_only"  # signed by the bench role, not marked for benching only
    still_serves(running)


def test_a_state_in_hand_is_told(running: RunningAgent, world: AgentWorld) -> None:
    seq = give(world, assigned(world, SMALL))
    assert world.wait_state(DeviceState.BENCH, seq).version == SMALL
