from dataclasses import replace

import pytest

from tests.support.rollout_world import START, World, new_view, quiet_policy, run_to_end
from wavegate_server.core.rollout.actions import ACTIONS, Action, act
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


def test_a_wave_is_approved_when_there_is_evidence_not_before() -> None:
    """It would have passed at the end of its soak, whatever was seen there."""
    world = World(new_view(policy=quiet_policy(few_canaries="human")))
    world.step()
    with pytest.raises(UsageError, match="does not soak yet") as refused:
        do(world, "approve")
    assert refused.value.code == "conflict"
    assert not world.view.waves[0].approved_by


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
    moved = {"current": False, "runs": 3, "ordered": 3}
    devices = [replace(d, **moved) if d.device == "d1-0" else d for d in world.view.devices]  # type: ignore[arg-type]
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


def test_a_rollback_takes_the_version_back_also_where_a_later_rollout_left_it() -> None:
    world = completed()
    devices = [replace(d, current=False, ordered=3 if d.device == "d0-0" else 2) for d in world.view.devices]
    world.view = replace(world.view, devices=tuple(devices))

    do(world, "rollback")
    for device in world.view.devices:
        world.reports(device.device, Outcome.PROVEN)
    world.step()

    assert {device.runs for device in world.view.devices} == {1}
    assert world.view.state is RolloutState.ROLLED_BACK


def test_a_revoked_device_is_not_waited_for() -> None:
    world = completed()
    devices = [replace(d, revoked=d.device == "d0-0") for d in world.view.devices]
    world.view = replace(world.view, devices=tuple(devices))
    do(world, "rollback")
    for device in world.view.members(1):
        world.reports(device.device, Outcome.PROVEN)
    world.step()

    assert "d0-0" not in world.restored
    assert world.view.state is RolloutState.ROLLED_BACK


def test_a_device_that_did_not_go_back_is_named_and_ordered_back_by_a_second_rollback() -> None:
    world = completed()
    do(world, "rollback")
    for device in world.view.devices:
        world.reports(device.device, Outcome.REFUSED if device.device == "d0-0" else Outcome.PROVEN, "load_failed")
    world.step()
    assert "3 back on their previous version, 1 not yet: d0-0 did not go back (load_failed)" in world.view.reason

    assert do(world, "rollback")
    world.reports("d0-0", Outcome.PROVEN)
    world.step()

    assert world.view.state is RolloutState.ROLLED_BACK


def test_a_first_version_cannot_be_rolled_back() -> None:
    world = run_to_end(World(new_view((1, 3), previous=0)), lambda world, device: world.reports(device, Outcome.PROVEN))

    with pytest.raises(UsageError, match="cannot be rolled back: no device that runs it has an earlier") as refused:
        do(world, "rollback")
    assert refused.value.code == "conflict"
    assert not world.denied


def test_a_version_that_no_device_runs_any_more_is_not_rolled_back() -> None:
    world = completed()
    devices = [replace(d, current=False, runs=3, ordered=3) for d in world.view.devices]
    world.view = replace(world.view, devices=tuple(devices))

    with pytest.raises(UsageError, match="runs version 2 of m any more"):
        do(world, "rollback")


def test_a_rollback_is_not_done_while_a_device_has_the_version_and_names_it() -> None:
    world = completed()
    do(world, "rollback")
    for device in world.view.members(1):
        world.reports(device.device, Outcome.PROVEN)
    world.pass_time(world.view.policy.rollback_deadline_s + 1)

    named = world.step()
    quiet = world.step()
    meanwhile = world.view.state
    world.reports("d0-0", Outcome.PROVEN)
    world.step()

    assert named.reason == "rolled back by ana; 3 back on their previous version, 1 not yet: d0-0 is late"
    assert quiet.empty
    assert (meanwhile, world.view.state) == (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK)
    assert world.view.reason == "rolled back by ana; 4 back on their previous version"
