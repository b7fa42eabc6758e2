from dataclasses import replace
from datetime import timedelta

from tests.support.rollout_world import START, World, new_view, quiet_policy, telemetry
from wavegate_server.core.gate.verdict import Verdict
from wavegate_server.core.rollout.after import idle_part, step_after, watch_until
from wavegate_server.core.rollout.plan import RolloutView
from wavegate_shared.states import AssignmentState, Outcome, RolloutState


def completed(live_requests: tuple[int | None, ...] = (0, 12, 50, None)) -> RolloutView:
    """A completed rollout of one wave whose devices had these live requests on probation."""
    world = World(new_view((len(live_requests),), policy=quiet_policy(soak_s=0.0)))
    world.step()
    world.everyone_reports(Outcome.PROVEN)
    world.pass_time(60)
    world.step()
    world.step()
    assert world.view.state is RolloutState.COMPLETED
    pairs = zip(world.view.devices, live_requests, strict=True)
    return replace(world.view, devices=tuple(replace(device, live_requests=live) for device, live in pairs))


def test_devices_with_too_few_live_requests_are_watched() -> None:
    view = completed()
    assert [device.device for device in idle_part(view).devices] == ["d0-0", "d0-1"]
    assert watch_until(view, START) == START + timedelta(days=1)


def test_nothing_is_watched_where_all_had_live_requests_or_it_is_off() -> None:
    assert watch_until(completed((50, 51, None)), START) is None
    off = completed()
    assert watch_until(replace(off, policy=quiet_policy(watch_s=0.0)), START) is None


def test_devices_that_moved_on_or_are_gone_are_not_watched() -> None:
    view = completed((0, 0, 0, 0))
    first, second, third, last = view.devices
    gone = (replace(first, current=False), replace(second, runs=3), replace(third, revoked=True), last)
    assert [device.device for device in idle_part(replace(view, devices=gone)).devices] == ["d0-3"]


def test_an_alarm_opens_the_rollout_again_for_all_its_devices() -> None:
    view = completed((0, 0, 0, 0, 0, 50))
    part = idle_part(view)
    transition = step_after(view, telemetry(part, loss=0.1), START + timedelta(hours=2))
    assert transition.state is RolloutState.ROLLING_BACK
    assert sorted(transition.restore) == [device.device for device in view.devices]
    assert transition.deny
    assert transition.gate is not None
    assert (transition.gate.final, transition.gate.decision.verdict) == (True, Verdict.ROLLBACK)


def test_without_an_alarm_nothing_changes() -> None:
    view = completed((0, 0, 0, 0, 0))
    assert step_after(view, telemetry(idle_part(view)), START).empty
    assert step_after(view, None, START).empty
    running = replace(view, state=RolloutState.RUNNING)
    assert step_after(running, telemetry(idle_part(view), loss=0.1), START).empty


def test_silence_after_a_rollout_is_no_alarm() -> None:
    view = completed((0, 0, 0, 0, 0))
    silent = tuple(replace(device, last_seen=None, state=AssignmentState.PROVEN) for device in view.devices)
    view = replace(view, devices=silent)
    assert step_after(view, telemetry(idle_part(view)), START + timedelta(days=1)).empty
