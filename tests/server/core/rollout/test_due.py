"""When to look again: walked second by second, no step before that time gives anything."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.rollout_world import START, World, new_view, quiet_policy
from wavegate_server.core.rollout.due import complete_until, next_look
from wavegate_server.core.rollout.step import step
from wavegate_shared.states import Outcome, RolloutState


def world(**changes: object) -> World:
    return World(new_view((2, 4), policy=quiet_policy(heartbeat_s=45.0, block_s=15.0, **changes)))


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_no_step_before_it_gives_anything(answered: int) -> None:
    """Devices that answer, that swap and fall silent, that never accept: each through its deadlines and silences."""
    scene = world()
    scene.step()
    for device in scene.view.members(0)[:answered]:
        scene.reports(device.device, Outcome.PROVEN)
    for _ in range(300):
        while not (transition := step(scene.view, None, scene.now)).empty:
            scene.apply(transition)
        due = next_look(scene.view, scene.now)
        assert due > scene.now
        for second in range(1, int((due - scene.now).total_seconds())):
            early = scene.now + timedelta(seconds=second)
            assert step(scene.view, None, early).empty, f"{early} is before {due}"
        scene.now = due
        if scene.view.state not in (RolloutState.RUNNING, RolloutState.ROLLING_BACK):
            break


def test_a_planned_start_is_waited_for() -> None:
    start = START + timedelta(seconds=20)
    view = world(start_at=start).view
    assert step(view, None, START).empty
    assert next_look(view, START) == start


def test_the_next_block_is_looked_at_once_it_is_complete() -> None:
    scene = world()
    scene.step()
    due = next_look(scene.view, scene.now)
    at = replace(scene.view)
    assert complete_until(at, due) >= complete_until(at, scene.now)
    assert due <= scene.now + timedelta(seconds=60)
