"""The machine on a device with several models: removal, and waiting for one's turn."""

from tests.agent.core.test_machine import V1, V3, at, works
from wavegate_agent.core.machine import step
from wavegate_agent.core.machine_types import AssignedVersion, Done, Offer, Remove, SendReport, Tick
from wavegate_shared.states import DeviceState as S
from wavegate_shared.states import Outcome

REMOVAL = AssignedVersion(seq=9, version=V1, remove=True)


def test_a_model_is_taken_away_and_reported_before_it_is_forgotten() -> None:
    slot, commands = step(at(S.IDLE), Offer(REMOVAL), 0.0)
    assert (slot.state, works(commands)) == (S.REMOVING, [Remove])
    slot, commands = step(slot, Done(S.REMOVING), 0.0)
    assert (slot.state, slot.active, slot.standby) == (S.COMMITTED, None, None)
    assert isinstance(commands[0], SendReport)
    assert commands[0].outcome is Outcome.REMOVED
    slot, _ = step(slot, Done(S.COMMITTED), 0.0)
    assert (slot.state, slot.empty) == (S.IDLE, True)


def test_a_removal_ends_what_is_under_way_first() -> None:
    slot, _ = step(at(S.FETCHING), Offer(REMOVAL), 0.0)
    assert (slot.state, slot.pending) == (S.DISCARDING, REMOVAL)
    slot, commands = step(slot, Done(S.DISCARDING), 0.0)
    assert (slot.state, works(commands)[-1]) == (S.REMOVING, Remove)


def test_an_update_waits_while_another_model_is_updated() -> None:
    order = AssignedVersion(seq=9, version=V3)
    slot, commands = step(at(S.IDLE), Offer(order, wait=True), 0.0)
    assert (slot.state, slot.pending, commands) == (S.IDLE, order, ())
    assert step(slot, Tick(free=False), 0.0) == (slot, ())
    slot, commands = step(slot, Tick(), 0.0)
    assert (slot.state, slot.assigned, slot.pending) == (S.OFFERED, order, None)


def test_a_put_off_update_waits_for_its_turn_too() -> None:
    slot = at(S.IDLE, outcome=Outcome.DEFERRED, due=5.0)
    assert step(slot, Tick(free=False), 6.0) == (slot, ())
    assert step(slot, Tick(), 6.0)[0].state is S.OFFERED
