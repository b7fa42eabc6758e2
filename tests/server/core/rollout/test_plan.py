from tests.support.rollout_world import new_view
from wavegate_server.core.rollout.plan import UNFINISHED, Transition
from wavegate_shared.states import RolloutState


def test_only_a_transition_with_nothing_in_it_is_empty() -> None:
    assert Transition().empty
    assert not Transition(publish=("d",)).empty
    assert not Transition(wave=0).empty


def test_members_are_those_of_one_wave() -> None:
    assert [device.device for device in new_view((1, 2)).members(1)] == ["d1-0", "d1-1"]


def test_every_state_is_either_finished_or_not() -> None:
    finished = {RolloutState.COMPLETED, RolloutState.ROLLED_BACK, RolloutState.CANCELLED}

    assert set(RolloutState) - UNFINISHED == finished
