from dataclasses import replace
from datetime import timedelta

from tests.support.rollout_world import START, World, new_view, quiet_policy
from wavegate_server.core.gate.verdict import Waiting
from wavegate_server.core.rollout.gate_inputs import gate_evidence
from wavegate_server.core.rollout.waiting import live_requests_missing
from wavegate_shared.assignment import Probation
from wavegate_shared.states import DeviceState, Outcome

LIVE_ONLY = quiet_policy(probation=Probation(requests=50, idle_after=None))


def on_probation(live_requests: dict[str, int | None]) -> World:
    """A wave of four devices, all swapped, that have said these numbers."""
    world = World(new_view((4,), policy=LIVE_ONLY))
    world.step()
    for number in range(4):
        world.says(f"d0-{number}", DeviceState.PROBATION)
    devices = tuple(replace(d, live_requests=live_requests.get(d.device)) for d in world.view.devices)
    world.view = replace(world.view, devices=devices)
    return world


def test_the_quietest_of_those_that_wait_is_told() -> None:
    world = on_probation({"d0-0": 2, "d0-1": 49, "d0-2": 50, "d0-3": None})
    until = f"{START + timedelta(seconds=100):%Y-%m-%d %H:%M:%S}"
    expected = Waiting(devices=2, fewest=2, requests=50, own=False, until=until)
    assert live_requests_missing(world.view) == expected
    assert gate_evidence(world.view, None, world.now).waiting == expected


def test_devices_that_have_said_nothing_wait_for_nothing_that_is_known() -> None:
    assert live_requests_missing(on_probation({}).view) is None
    assert live_requests_missing(World(new_view()).view) is None


def test_whether_own_requests_come_is_the_policys() -> None:
    world = on_probation({"d0-0": 0})
    world.view = replace(world.view, policy=quiet_policy(probation=Probation(idle_after=60.0)))
    waiting = live_requests_missing(world.view)
    assert waiting is not None
    assert waiting.own


def test_it_is_said_at_once_and_again_only_when_it_changes() -> None:
    world = on_probation({"d0-0": 2})
    said = world.step(evidence=False)
    assert str(said.reason).startswith(
        "waits for 50 live requests on 1 device; the quietest had 2; a device without them"
    )
    assert world.step(evidence=False).empty
    devices = tuple(replace(d, live_requests=7 if d.live_requests == 2 else None) for d in world.view.devices)
    world.view = replace(world.view, devices=devices)
    assert "the quietest had 7" in str(world.step(evidence=False).reason)


def test_it_is_not_said_any_longer_than_devices_wait() -> None:
    world = on_probation({"d0-0": 2})
    world.step(evidence=False)
    world.everyone_reports(Outcome.PROVEN)
    assert world.step(evidence=False).reason == "wave 1: 4 of 4 devices"
    assert world.step(evidence=False).reason is None
