from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.rollout_world import START, World, new_view, quiet_policy, run_to_end
from wavegate_server.core.gate.verdict import Verdict
from wavegate_server.core.rollout.gate_inputs import gate_evidence, soak_over
from wavegate_server.core.rollout.step import step
from wavegate_shared.states import AssignmentState, DeviceState, Outcome, RolloutState, WaveState


def proven(world: World, device: str) -> None:
    world.reports(device, Outcome.PROVEN)


def canary_soaks(world: World) -> World:
    """Up to the point where the first wave is being watched."""
    world.step()
    world.everyone_reports(Outcome.PROVEN)
    world.step(evidence=False)
    assert world.view.waves[world.view.wave].state is WaveState.SOAKING
    return world


# --- the good way -----------------------------------------------------------------------------------------------------


def test_a_good_version_reaches_everybody_wave_by_wave() -> None:
    world = run_to_end(World(new_view((1, 3, 6))), proven)

    assert world.view.state is RolloutState.COMPLETED
    assert world.passed == [0, 1, 2]
    assert world.restored == []
    assert {device.state for device in world.view.devices} == {AssignmentState.PROVEN}


def test_the_first_step_reaches_the_first_wave_only() -> None:
    world = World(new_view((2, 3)))

    transition = world.step()

    assert transition.publish == ("d0-0", "d0-1")
    assert world.view.state is RolloutState.RUNNING


def test_it_waits_for_its_start_time() -> None:
    world = World(new_view(policy=quiet_policy(start_at=START + timedelta(hours=1))))

    assert world.step().empty
    world.pass_time(3600)
    assert world.step().publish == ("d0-0",)


def test_a_draft_waits_for_approval() -> None:
    assert step(replace(new_view(), state=RolloutState.DRAFT), None, START).empty


def test_a_wave_is_promoted_only_after_its_soak() -> None:
    world = canary_soaks(World(new_view()))

    world.pass_time(59)
    early = world.step()
    world.pass_time(2)
    late = world.step()

    assert early.gate is not None
    assert early.gate.decision.verdict is Verdict.HOLD
    assert late.publish == ("d1-0", "d1-1", "d1-2")


def test_a_wave_is_never_promoted_without_fresh_evidence() -> None:
    world = canary_soaks(World(new_view()))
    world.pass_time(600)

    assert world.step(evidence=False).empty


def test_the_soak_begins_when_every_device_came_to_an_end() -> None:
    world = World(new_view((2, 1)))
    world.step()
    world.reports("d0-0", Outcome.PROVEN)
    world.step(evidence=False)
    waiting = world.view.waves[0].state

    world.reports("d0-1", Outcome.DEFERRED)
    world.step(evidence=False)

    assert (waiting, world.view.waves[0].state) == (WaveState.RUNNING, WaveState.SOAKING)


def test_at_most_so_many_devices_are_at_work() -> None:
    world = World(new_view((5,), policy=quiet_policy(max_in_flight=2)))

    first = world.step().publish
    world.reports("d0-0", Outcome.PROVEN)
    second = world.step(evidence=False).publish

    assert (first, second) == (("d0-0", "d0-1"), ("d0-2",))


def test_the_same_view_gives_the_same_step() -> None:
    world = canary_soaks(World(new_view()))

    assert step(world.view, None, world.now) == step(world.view, None, world.now)


# --- the canary refuses -----------------------------------------------------------------------------------------------


def test_a_refused_golden_set_stops_it_with_no_other_device_touched() -> None:
    world = World(new_view((1, 7)))
    world.step()
    world.reports("d0-0", Outcome.REFUSED, "golden_failed")

    transition = world.step(evidence=False)
    world.step(evidence=False)

    assert transition.gate is not None
    assert transition.gate.final
    assert transition.reason == "d0-0 refused version 2 (golden_failed): rolled back"
    assert world.published == ["d0-0"]
    assert world.denied
    assert world.view.state is RolloutState.ROLLED_BACK
    assert {d.state for d in world.view.members(1)} == {AssignmentState.SKIPPED}


def test_the_device_that_refused_gets_its_old_order_back() -> None:
    """What is stored is what it is told at every hello: it must not be the version it refused."""
    world = World(new_view((1, 7)))
    world.step()
    world.reports("d0-0", Outcome.REFUSED, "golden_failed")
    world.step(evidence=False)

    assert world.restored == ["d0-0"]
    assert world.device("d0-0").state is AssignmentState.FAILED


# --- the gate alarms --------------------------------------------------------------------------------------------------


def test_a_version_that_is_wrong_live_is_rolled_back_where_it_is() -> None:
    world = canary_soaks(World(new_view((1, 7)), loss=0.267))

    transition = world.step()

    assert world.view.state is RolloutState.ROLLING_BACK
    assert transition.restore == ("d0-0",)
    assert transition.reason == "d0-0: live accuracy fell 97.9 % -> 71.2 % (margin 5.0 pt): rolled back"
    assert world.published == ["d0-0"]


def test_the_alarm_does_not_wait_for_the_soak() -> None:
    world = World(new_view((3, 7)), loss=0.267)
    world.step()
    world.says("d0-0", DeviceState.PROBATION)

    world.step()

    assert world.view.state is RolloutState.ROLLING_BACK
    assert sorted(world.restored) == ["d0-0", "d0-1", "d0-2"]


def test_devices_of_earlier_waves_go_back_as_well() -> None:
    world = canary_soaks(World(new_view((1, 2, 5))))
    world.pass_time(61)
    world.step()
    world.everyone_reports(Outcome.PROVEN)
    world.loss = 0.2
    world.step()

    assert sorted(world.restored) == ["d0-0", "d1-0", "d1-1"]


def test_it_is_rolled_back_when_every_device_is_back() -> None:
    world = canary_soaks(World(new_view((1, 7)), loss=0.3))
    world.step()
    assert world.step().empty

    world.reports("d0-0", Outcome.PROVEN)
    done = world.step()

    assert world.view.state is RolloutState.ROLLED_BACK
    assert done.sentence == "1 back on their previous version"
    assert world.device("d0-0").state is AssignmentState.ROLLED_BACK


def test_an_order_that_was_never_accepted_is_withdrawn_and_not_waited_for() -> None:
    world = World(new_view((2, 7)), loss=0.3)
    world.step()
    world.reports("d0-0", Outcome.PROVEN)
    world.step()

    assert world.device("d0-1").state is AssignmentState.SKIPPED
    assert "d0-1" in world.restored


def test_a_device_that_ran_nothing_before_keeps_what_it_has() -> None:
    world = World(new_view((2, 7), previous=0))
    world.step()
    world.reports("d0-0", Outcome.PROVEN)
    world.reports("d0-1", Outcome.REFUSED, "golden_failed")
    world.step(evidence=False)
    world.step(evidence=False)

    assert world.view.state is RolloutState.CANCELLED
    assert world.denied
    assert "d0-0 keep version 2" in world.view.reason
    assert world.device("d0-0").state is AssignmentState.PROVEN
    assert "nothing to go back to" in world.device("d0-0").reason


def test_a_paused_rollout_reaches_nobody_but_still_rolls_back() -> None:
    world = canary_soaks(World(new_view((1, 7))))
    world.view = replace(world.view, state=RolloutState.PAUSED)
    world.pass_time(600)
    assert world.step().publish == ()
    assert world.passed == []

    world.loss = 0.3
    world.step()

    assert world.view.state is RolloutState.ROLLING_BACK


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_a_device_that_never_answers_is_no_failure_and_no_proof() -> None:
    world = World(new_view((2, 2)))
    world.step()
    world.reports("d0-0", Outcome.PROVEN)
    world.pass_time(101)
    world.step()

    assert world.device("d0-1").state is AssignmentState.TIMED_OUT
    assert world.view.state is RolloutState.RUNNING


def test_a_device_that_accepted_and_did_not_get_through_is_a_failure() -> None:
    world = World(new_view((2, 2)))
    world.step()
    world.says("d0-0", DeviceState.FETCHING)
    world.pass_time(101)

    transition = world.step()

    assert world.view.state is RolloutState.ROLLING_BACK
    assert "timed_out" in (transition.reason or "")


def test_deadlines_do_not_count_while_the_controller_was_away() -> None:
    """Counted from the assignment, a restart once rolled back half of all good rollouts."""
    world = World(new_view((1, 2)))
    world.step()
    world.says("d0-0", DeviceState.FETCHING)
    world.pass_time(5000)
    world.view = replace(world.view, since=world.now)

    assert world.step().devices == ()
    world.pass_time(11)
    assert world.step().devices != ()


def test_a_wave_of_absent_devices_holds() -> None:
    world = World(new_view((2, 2)))
    world.step()
    world.pass_time(101)
    world.step()
    world.pass_time(1)
    world.step()
    world.pass_time(600)

    held = world.step()

    assert held.gate is not None
    assert held.gate.decision.sentence == "no device of this wave serves the new version: held"
    assert world.published == ["d0-0", "d0-1"]


def test_a_late_device_may_still_come_through() -> None:
    world = World(new_view((2, 2)))
    world.step()
    world.pass_time(101)
    world.step()

    world.says("d0-1", DeviceState.PROBATION)

    assert world.device("d0-1").state is AssignmentState.SWAPPED


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_device_silent_since_its_swap_stops_the_rollout() -> None:
    world = canary_soaks(World(new_view((1, 4))))
    silent_since = world.now
    world.pass_time(1000)
    world.view = replace(
        world.view,
        devices=tuple(replace(d, last_seen=silent_since) if d.wave == 0 else d for d in world.view.devices),
    )

    transition = world.step(evidence=False)

    assert transition.reason == "1 device of 1 went silent after the swap: rolled back"


def test_silence_right_after_a_restart_is_ours() -> None:
    world = canary_soaks(World(new_view((1, 4))))
    world.now += timedelta(seconds=1000)
    world.view = replace(world.view, since=world.now - timedelta(seconds=5))

    assert gate_evidence(world.view, None, world.now).guards.silent == []
    assert not soak_over(world.view, world.now)


# --- properties -------------------------------------------------------------------------------------------------------

outcomes = st.sampled_from(
    [Outcome.PROVEN, Outcome.PROVEN, Outcome.PROVEN, Outcome.REFUSED, Outcome.REVERTED, Outcome.DEFERRED, None]
)


def fleet_that_answers(answers: list[Outcome | None]) -> Callable[[World, str], None]:
    def answer(world: World, device: str) -> None:
        names = [d.device for d in world.view.devices]
        outcome = answers[names.index(device) % len(answers)]
        world.says(device, DeviceState.FETCHING)
        if outcome is not None:
            world.reports(device, outcome, "load_failed" if outcome is Outcome.REFUSED else None)

    return answer


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 14), min_size=1, max_size=3).map(tuple),
    answers=st.lists(outcomes, min_size=1, max_size=40),
    limit=st.sampled_from([0, 1, 3]),
    share=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_the_failure_budget_holds(
    sizes: tuple[int, ...], answers: list[Outcome | None], limit: int, share: float
) -> None:
    """Never more failures than the budget and what was at work when it broke; and then nobody new is reached."""
    policy = quiet_policy(max_in_flight=limit, max_failure_share=share)
    world = run_to_end(World(new_view(sizes, policy=policy)), fleet_that_answers(answers))

    begun = [wave for wave in world.view.waves if wave.state is not WaveState.PENDING]
    budget = sum(policy.failure_budget(wave.size) for wave in begun)
    failed = [
        device
        for device in world.view.devices
        if device.state is AssignmentState.FAILED or (device.state is AssignmentState.TIMED_OUT and device.accepted_at)
    ]
    assert len(failed) <= budget + (limit or max(wave.size for wave in begun))
    if len(failed) > budget:
        assert world.view.state is RolloutState.ROLLED_BACK
    assert {device.wave for device in world.view.devices if device.published_at} == {wave.number for wave in begun}


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple),
    answers=st.lists(outcomes, min_size=1, max_size=20),
    loss=st.sampled_from([0.0, 0.3]),
)
def test_no_wave_begins_before_the_one_before_it_passed(
    sizes: tuple[int, ...], answers: list[Outcome | None], loss: float
) -> None:
    world = World(new_view(sizes), loss=loss)
    answer = fleet_that_answers(answers)
    for _ in range(40):
        before = len(world.published)
        world.step()
        waves = {world.device(name).wave for name in world.published[before:]}
        assert all(set(range(wave)) <= set(world.passed) for wave in waves)
        for device in world.view.devices:
            if device.state is AssignmentState.PUBLISHED:
                answer(world, device.device)
        world.pass_time(30)


@pytest.mark.parametrize(
    "state", [RolloutState.COMPLETED, RolloutState.ROLLED_BACK, RolloutState.CANCELLED, RolloutState.DRAFT]
)
def test_a_finished_rollout_does_nothing(state: RolloutState) -> None:
    assert step(replace(new_view(), state=state), None, START).empty
