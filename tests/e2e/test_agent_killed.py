"""kill -9 of a real agent, again and again, while a real rollout brings it a version: it always comes back and gets there."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until
from wavegate_agent.adapters.device.status_socket import read_status
from wavegate_server.demo.fleet import DemoDevice, Fleet
from wavegate_server.demo.processes import Processes, command
from wavegate_shared.errors import UsageError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

TREE = Path(__file__).resolve().parents[2] / "deploy" / "models" / "address-match"
MODEL = "address-match"
DEVICE = DemoDevice("kiosk-1", "edge", "here", 1, 1024)
KILLS = 6


class KilledAgent:
    """A `wavegate-agent run` process that may be killed and started again."""

    options: tuple[str, ...] = ()

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.state / "agent.log").open("ab") as log:
            arguments = [command("wavegate-agent"), "run", "--state", str(self.state), "--window-s", "1", *self.options]
            self.process = subprocess.Popen(arguments, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        assert self.process.wait(10) == -signal.SIGKILL

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def slot(self) -> dict[str, Any]:
        try:
            slots = read_status(self.state / "agent.sock")["slots"]
        except UsageError:
            return {}
        assert isinstance(slots, dict)
        found: dict[str, Any] = slots.get("address-match", {})
        return found


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Processes(tmp_path / "logs") as processes:
        made = Fleet(tmp_path, processes)
        made.start_server()
        made.wavegate("model", "import", str(TREE / "bundle"))
        made.wavegate("model", "publish", MODEL, "1")
        made.enrol(DEVICE)
        yield made
        made.api.close()


def workers(state: Path) -> list[int]:
    """Worker processes that serve out of this state directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                maps = (entry / "cmdline").read_bytes(), (entry / "maps").read_bytes()
            except OSError:
                continue
            if b"wavegate_agent.worker" in maps[0] and str(state).encode() in maps[1]:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_a_version_arrives_through_any_number_of_kills(fleet: Fleet, tmp_path: Path) -> None:
    """At most two kills fall into the candidate's trial (a third would be evidence against it); nothing is fetched twice."""
    agent = KilledAgent(tmp_path / "devices" / DEVICE.id)
    agent.start()
    policy = ("--waves", "all=100%", "--soak", "0s", "--probation", "1s", "--probation-requests", "0")
    rollout = fleet.wavegate("rollout", "create", MODEL, "1", "--devices", "all", *policy)["id"]
    chance = random.Random(11)
    in_trial = 0
    for _ in range(KILLS):
        wait_until(lambda: agent.slot(), "a status of the agent")
        time.sleep(chance.uniform(0.0, 1.5))
        state = agent.slot().get("state")
        if state in ("loading", "golden", "bench", "ready", "swapping", "probation"):
            in_trial += 1
            if in_trial > 2:
                continue
        agent.kill()
        agent.start()
    wait_until(lambda: fleet.rollout(rollout)["devices"].get("proven", 0) == 1, "a proven version")
    wait_until(lambda: agent.slot().get("serving") == 1, "a serving version")
    size = sum(a["size_bytes"] for a in fleet.api.get(f"/models/{MODEL}/versions/1")["artifacts"])
    assert fleet.reports(DEVICE.id)[-1]["bytes_fetched"] <= size
    assert agent.end() == 0
    wait_until(lambda: not workers(agent.state), "the end of the agent's workers", timeout_s=15)


def test_a_killed_agent_takes_its_workers_along_and_serves_again(fleet: Fleet, tmp_path: Path) -> None:
    agent = KilledAgent(tmp_path / "devices" / DEVICE.id)
    agent.start()
    policy = ("--waves", "all=100%", "--soak", "0s", "--probation", "0s", "--probation-requests", "0")
    rollout = fleet.wavegate("rollout", "create", MODEL, "1", "--devices", "all", *policy)["id"]
    wait_until(lambda: fleet.rollout(rollout)["devices"].get("proven", 0) == 1, "a proven version")
    before = json.loads(json.dumps(agent.slot()))
    agent.kill()
    wait_until(lambda: not workers(agent.state), "the end of the agent's workers", timeout_s=15)
    agent.start()
    wait_until(lambda: agent.slot().get("serving") == before["serving"], "the version before serves again")
    assert agent.end() == 0
