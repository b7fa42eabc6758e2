"""A transition in parts: nothing is lost, one device stays together, and what comes first is what has to."""

from dataclasses import replace

from tests.support.rollout_world import START, World, new_view, quiet_policy
from wavegate_server.core.rollout.actions import act
from wavegate_server.core.rollout.parts import goes_on, parts
from wavegate_server.core.rollout.plan import RolloutView, Transition
from wavegate_server.core.rollout.step import roll_back, step
from wavegate_server.core.sentences import Sentence
from wavegate_shared.states import AssignmentState, RolloutState


def begun(sizes: tuple[int, ...] = (25,)) -> RolloutView:
    """Every device of the first wave has its order."""
    world = World(new_view(sizes, policy=quiet_policy()))
    world.step()
    return world.view


def whole(cut: list[Transition]) -> tuple[set[str], set[str], set[str]]:
    return (
        {change.device for part in cut for change in part.devices},
        {name for part in cut for name in part.publish},
        {name for part in cut for name in part.restore},
    )


def test_a_wave_is_cut_and_the_decision_comes_first() -> None:
    view = new_view((25,))
    transition = step(view, None, START)
    cut = parts(view, transition, 10)
    assert [len(part.publish) for part in cut] == [10, 10, 5]
    assert [part.state for part in cut] == [RolloutState.RUNNING, None, None]
    assert whole(cut) == whole([transition])
    assert goes_on(transition)


def test_few_devices_are_one_part() -> None:
    view = new_view((3,))
    transition = step(view, None, START)
    assert parts(view, transition, 10) == [transition]


def test_what_a_rollback_leaves_is_what_the_next_step_gives() -> None:
    view = begun()
    transition = roll_back(view, Sentence.plain("it is bad"), START)
    cut = parts(view, transition, 10)
    assert [part.state for part in cut] == [RolloutState.ROLLING_BACK, None, None]
    assert whole(cut) == whole([transition])
    done = {change.device for change in cut[0].devices}
    left = replace(
        view,
        state=RolloutState.ROLLING_BACK,
        devices=tuple(replace(device, undecided=device.device not in done) for device in view.devices),
    )
    rest = step(left, None, START)
    assert whole([rest]) == whole(cut[1:])
    assert goes_on(rest)


def test_an_abort_stops_everything_before_and_says_so_last() -> None:
    view = begun()
    transition = act(view, "abort", actor="ana", reason="", now=START)
    cut = parts(view, transition, 10)
    assert [part.state for part in cut] == [RolloutState.PAUSED, None, None, RolloutState.CANCELLED]
    assert whole(cut) == whole([transition])
    assert not goes_on(transition)


def test_deadlines_start_anew_before_the_rollout_goes_on() -> None:
    view = replace(begun(), state=RolloutState.PAUSED)
    transition = act(view, "resume", actor="ana", reason="", now=START)
    assert [part.state for part in parts(view, transition, 10)] == [None, None, RolloutState.RUNNING]


def test_rows_that_ended_come_before_the_gate() -> None:
    """More devices than a part holds are too late at once: they are written first, the rollout is judged after."""
    view = begun((250,))
    late = step(view, None, START.replace(year=2027))
    assert len(late.devices) == 100
    assert {change.state for change in late.devices} == {AssignmentState.TIMED_OUT}
    assert late.gate is None
