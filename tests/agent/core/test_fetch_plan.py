"""The window and the stall timer: everything arrives once, nothing is asked for twice in vain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_agent.core.fetch_plan import MAX_STALLS, MIN_STALL_S, WINDOW, FetchPlan
from wavegate_shared.errors import TransferError


def test_a_window_is_asked_for_and_refilled_in_halves() -> None:
    plan = FetchPlan(range(20), 0.0)
    assert plan.ask(0.0) == list(range(WINDOW))
    assert plan.ask(0.0) == []
    for index in range(WINDOW // 2):
        plan.arrived(index, 0.1)
    assert plan.ask(0.1) == [8, 9, 10, 11]


def test_silence_asks_again_for_what_was_under_way() -> None:
    plan = FetchPlan(range(3), 0.0)
    plan.ask(0.0)
    plan.arrived(1, 0.5)
    assert plan.ask(0.6) == []
    assert plan.ask(plan.deadline) == [0, 2]
    assert plan.repeats == 2


def test_the_timer_follows_the_pace() -> None:
    slow = FetchPlan(range(50), 0.0)
    slow.ask(0.0)
    for index in range(8):
        slow.arrived(index, 4.0 * (index + 1))
    assert slow.deadline - 32.0 == pytest.approx(12.0, rel=0.05)
    fast = FetchPlan(range(50), 0.0)
    fast.ask(0.0)
    for index in range(8):
        fast.arrived(index, 0.001 * (index + 1))
    assert fast.deadline - 0.008 == pytest.approx(MIN_STALL_S)


def test_it_gives_up_after_too_many_stalls() -> None:
    plan = FetchPlan(range(3), 0.0)
    plan.ask(0.0)
    for _ in range(MAX_STALLS):
        plan.ask(plan.deadline)
    with pytest.raises(TransferError, match="transfer_stalled"):
        plan.ask(plan.deadline)


def test_an_arrival_forgives_the_stalls() -> None:
    plan = FetchPlan(range(3), 0.0)
    plan.ask(0.0)
    for _ in range(MAX_STALLS):
        plan.ask(plan.deadline)
    plan.arrived(0, plan.deadline)
    assert plan.stalls == 0


def test_a_repeat_is_not_counted_and_a_damaged_one_is_asked_again() -> None:
    plan = FetchPlan(range(2), 0.0)
    plan.ask(0.0)
    assert plan.arrived(0, 0.1)
    assert not plan.arrived(0, 0.1)
    plan.damaged(1)
    assert plan.ask(0.2) == [1]


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 40))
def test_whatever_gets_lost_every_chunk_arrives_exactly_once(losses: list[bool], size: int) -> None:
    plan, now, written, lost = FetchPlan(range(size), 0.0), 0.0, [], iter(losses)
    stalled = 0
    while not plan.done:
        asked = plan.ask(now)
        arrived = [index for index in asked if not next(lost, False)]
        for index in arrived:
            now += 0.01
            if plan.arrived(index, now):
                written.append(index)
        if not arrived:
            now = plan.deadline
            stalled += 1
            if plan.stalls >= MAX_STALLS:
                return  # given up, as it should
    assert sorted(written) == list(range(size))
