"""The running agent renews its certificate: asks, goes over, connects anew, and signs with the new key."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.agent_identity import AUTHORITY, enrolled
from tests.support.agent_world import AgentWorld, RunningAgent
from tests.support.tuf_world import DEVICE
from wavegate_shared.dsse import signer_from_pem
from wavegate_shared.states import Outcome
from wavegate_shared.wire import Renewed, RenewRequest


def requests(world: AgentWorld) -> list[RenewRequest]:
    return [message for message in world.said if isinstance(message, RenewRequest)]


def certificate(world: AgentWorld, request: RenewRequest, serial: int, *, days: float = 90) -> Renewed:
    now = datetime.now(UTC)  # noqa: TID251 - the agent under test reads the real clock
    return Renewed(certificate=AUTHORITY.answer(request.csr, now, now + timedelta(days=days), serial))


def old(state: Path, world: AgentWorld, *, begun_days: float = 80, ends_days: float = 10) -> None:
    world.device_key = enrolled(state, world.tuf, begun_days=begun_days, ends_days=ends_days)


def test_a_device_renews_its_certificate_and_nothing_else_changes(tmp_path: Path, world: AgentWorld) -> None:
    old(tmp_path, world)
    with RunningAgent(tmp_path, world) as running:
        assert world.hellos[-1].certificate == "2"
        running.install(1)
        (request,) = world.wait(lambda: requests(world), "a request")
        world.send(certificate(world, request, 0xAB))
        world.wait(lambda: world.hellos[-1].certificate == "ab", "a hello with the new certificate")
        assert world.reconnects == 1
        world.later_keys.append(signer_from_pem((tmp_path / "identity" / "device.key").read_bytes()).public_key)
        assert world.wait_report(world.assign(2)).outcome is Outcome.PROVEN  # signed with the new key
        assert running.host.live == 2
        assert len(requests(world)) == 1
    with RunningAgent(tmp_path, world):
        assert world.hellos[-1].certificate == "ab"


def test_a_young_certificate_is_left_alone(tmp_path: Path, world: AgentWorld) -> None:
    old(tmp_path, world, begun_days=10, ends_days=80)
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
        running.agent._renewal._next = 0.0
        running.agent._uplink_thread.wake(hello=True)
        world.wait(lambda: len(world.hellos) > 1)
        assert requests(world) == []


@pytest.mark.parametrize("answer", ["refused", "nonsense", "another key"])
def test_a_bad_answer_is_survived_and_asked_for_again(tmp_path: Path, world: AgentWorld, answer: str) -> None:
    old(tmp_path, world)
    with RunningAgent(tmp_path, world) as running:
        world.wait(lambda: requests(world), "a request")
        pem = (tmp_path / "identity" / "device.pem").read_text()
        bad = {
            "refused": Renewed(code="renewal_refused", detail="no"),
            "nonsense": Renewed(certificate="nonsense"),
            "another key": Renewed(certificate=pem),
        }
        world.send(bad[answer])
        world.wait(lambda: running.agent._renewal._answer is None)
        assert running.install(1).outcome is Outcome.PROVEN
        assert world.hellos[-1].certificate == "2"
        running.agent._renewal._next = 0.0  # an hour later
        running.agent._uplink_thread.wake()
        again = world.wait(lambda: requests(world)[1:], "another request")[0]
        world.send(certificate(world, again, 0xAB))
        world.wait(lambda: world.hellos[-1].certificate == "ab")


def test_without_a_connection_an_ended_certificate_is_renewed_over_https(
    tmp_path: Path, world: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that does it is tested in `tests/e2e/test_renewal.py`; here it is one that renews at once."""
    old(tmp_path, world, begun_days=100, ends_days=-10)
    world.offline = True
    started: list[list[str]] = []

    class Renewing:
        def __init__(self, command: list[str], **_options: object) -> None:
            started.append(command)
            identity = running.agent._renewal._identity
            request = RenewRequest(csr=identity.request(DEVICE))
            identity.take(certificate(world, request, 0xAB).certificate, DEVICE)

        def poll(self) -> int:
            return 0

    monkeypatch.setattr("wavegate_agent.control.renewal.subprocess.Popen", Renewing)
    with RunningAgent(tmp_path, world) as running:
        world.wait(lambda: running.agent._renewal.term.serial == "ab", "the new certificate")
        assert started[0][1:4] == ["-m", "wavegate_agent.cli", "renew"]
        world.reconnect()
        world.wait(lambda: world.hellos and world.hellos[-1].certificate == "ab")
