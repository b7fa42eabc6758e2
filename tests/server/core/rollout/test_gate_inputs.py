from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.rollout_world import World, new_view, quiet_policy
from wavegate_server.core.rollout.gate_inputs import gate_evidence, left, soak_over
from wavegate_server.core.sentences import Sentence
from wavegate_shared.states import AssignmentState, DeviceState, Outcome, RolloutState, WaveState

STATES = [AssignmentState.SCHEDULED, AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.SWAPPED]


def revoke(world: World, name: str) -> None:
    """As the register says it from now on."""
    devices = tuple(replace(d, revoked=d.revoked or d.device == name) for d in world.view.devices)
    world.view = replace(world.view, devices=devices)


def state_of(world: World, name: str) -> tuple[AssignmentState, str]:
    device = next(device for device in world.view.devices if device.device == name)
    return device.state, Sentence.plain(device.reason).code if device.reason else ""


@pytest.mark.parametrize("reached", STATES)
def test_a_device_that_leaves_under_way_ends_at_once_and_holds_nothing_up(reached: AssignmentState) -> None:
    policy = quiet_policy(max_in_flight=2) if reached is AssignmentState.SCHEDULED else quiet_policy()
    world = World(new_view((3,), policy=policy))
    world.step()
    if reached in (AssignmentState.ACCEPTED, AssignmentState.SWAPPED):
        world.says("d0-2", DeviceState.PREFLIGHT)
    if reached is AssignmentState.SWAPPED:
        world.says("d0-2", DeviceState.PROBATION)
    assert state_of(world, "d0-2")[0] is reached

    revoke(world, "d0-2")
    world.step()
    assert state_of(world, "d0-2") == (AssignmentState.SKIPPED, "device.left")
    for name in ("d0-0", "d0-1"):
        world.reports(name, Outcome.PROVEN)
    world.step(evidence=False)
    assert world.view.waves[0].state is WaveState.SOAKING  # long before any deadline
    world.pass_time(70)
    world.step()
    assert (world.view.state, str(world.view.reason)) == (RolloutState.COMPLETED, "proven on 2 of 3 devices; 1 skipped")


def test_guards_and_budgets_count_without_a_device_that_left() -> None:
    world = World(new_view((4,), policy=quiet_policy(max_failure_share=0.5)))
    world.step()
    world.everyone_reports(Outcome.PROVEN)
    world.view = replace(
        world.view,
        devices=tuple(
            replace(d, state=AssignmentState.TIMED_OUT, accepted_at=world.now) if d.device == "d0-3" else d
            for d in world.view.devices
        ),
    )
    before = gate_evidence(world.view, None, world.now).guards
    revoke(world, "d0-3")
    after = gate_evidence(world.view, None, world.now).guards
    assert (before.size, before.budget, [failure.device for failure in before.failed]) == (4, 2, ["d0-3"])
    assert (after.size, after.budget, after.failed) == (3, 1, [])


def test_silence_of_a_device_that_left_is_no_alarm() -> None:
    world = World(new_view((2,)))
    world.step()
    world.everyone_reports(Outcome.PROVEN)
    later = world.now + timedelta(hours=2)
    assert gate_evidence(world.view, None, later).guards.silent == ["d0-0", "d0-1"]
    revoke(world, "d0-0")
    assert gate_evidence(world.view, None, later).guards.silent == ["d0-1"]


def test_what_a_device_proved_or_failed_before_it_left_stays() -> None:
    world = World(new_view((1,)))
    device = world.view.devices[0]
    for state, gone in (
        (AssignmentState.PROVEN, False),
        (AssignmentState.FAILED, False),
        (AssignmentState.SWAPPED, True),
    ):
        assert left(replace(device, state=state, revoked=True)) is gone
        assert not left(replace(device, state=state))


def test_the_soak_is_over_after_its_time_only() -> None:
    world = World(new_view((1,)))
    world.step()
    world.everyone_reports(Outcome.PROVEN)
    world.step(evidence=False)
    assert not soak_over(world.view, world.now + timedelta(seconds=59))
    assert soak_over(world.view, world.now + timedelta(seconds=60))
