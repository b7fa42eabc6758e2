from dataclasses import replace

import pytest

from tests.support.rollout_world import START, World, new_view, quiet_policy, run_to_end
from wavegate_server.core.actions import ACTIONS, Action, act
from wavegate_shared.errors import UsageError
from wavegate_shared.states import AssignmentState, DeviceState, Outcome, RolloutState


def do(world: World, action: Action, reason: str = "") -> bool:
    transition = act(world.view, action, actor="ana", reason=reason, now=world.now)
    world.apply(transition)
    return not transition.empty


def running(*sizes: int) -> World:
    world = World(new_view(sizes or (1, 3)))
    world.step()
    return world


def completed() -> World:
    return run_to_end(World(new_view((1, 3))), lambda world, device: world.reports(device, Outcome.PROVEN))


def test_pause_and_resume() -> None:
    world = running()

    assert do(world, "pause")
    paused = world.view.state
    assert do(world, "resume")

    assert (paused, world.view.state) == (RolloutState.PAUSED, RolloutState.RUNNING)


def test_resuming_gives_devices_at_work_a_fresh_deadline() -> None:
    world = running()
    do(world, "pause")
    world.pass_time(5000)
    do(world, "resume")

    world.step()

    assert world.device("d0-0").state is AssignmentState.PUBLISHED


def test_a_rollout_paused_before_its_start_goes_on_waiting() -> None:
    world = World(new_view())
    do(world, "pause")
    do(world, "resume")

    assert world.view.state is RolloutState.SCHEDULED


def test_approving_a_draft_schedules_it() -> None:
    world = World(replace(new_view(), state=RolloutState.DRAFT))
    do(world, "approve")

    assert world.view.state is RolloutState.SCHEDULED


def test_approving_a_wave_lets_it_pass_after_its_soak() -> None:
    world = World(new_view(policy=quiet_policy(few_canaries="human")))
    world.step()
    world.everyone_reports(Outcome.PROVEN)
    world.step()
    world.pass_time(61)
    world.step()
    assert world.passed == []

    do(world, "approve")
    world.step()

    assert world.passed == [0]


def test_abort_withdraws_orders_and_leaves_what_swapped() -> None:
    world = running(3, 2)
    world.reports("d0-0", Outcome.PROVEN)
    world.says("d0-1", DeviceState.FETCHING)

    do(world, "abort", "wrong week")

    assert world.view.state is RolloutState.CANCELLED
    assert sorted(world.restored) == ["d0-1", "d0-2"]
    assert world.device("d0-0").state is AssignmentState.PROVEN
    assert not world.denied


def test_a_completed_rollout_can_be_rolled_back() -> None:
    world = completed()

    do(world, "rollback", "customers complain")

    assert world.view.state is RolloutState.ROLLING_BACK
    assert len(world.restored) == 4
    assert world.denied


def test_devices_that_moved_on_since_are_not_rolled_back() -> None:
    world = completed()
    devices = [replace(d, current=d.device != "d1-0") for d in world.view.devices]
    world.view = replace(world.view, devices=tuple(devices))

    do(world, "rollback")

    assert "d1-0" not in world.restored


@pytest.mark.parametrize("action", ["pause", "resume", "abort", "rollback"])
def test_done_twice_changes_nothing_the_second_time(action: Action) -> None:
    world = running()
    if action == "resume":
        do(world, "pause")

    assert do(world, action)
    assert not do(world, action)


@pytest.mark.parametrize("action", [action for action in ACTIONS if action != "rollback"])
def test_a_completed_rollout_takes_no_other_action(action: Action) -> None:
    with pytest.raises(UsageError, match="is completed") as refused:
        do(completed(), action)
    assert refused.value.code == "conflict"


def test_nothing_to_roll_back_before_the_start() -> None:
    with pytest.raises(UsageError, match="not possible"):
        act(new_view(), "rollback", actor="ana", reason="", now=START)
