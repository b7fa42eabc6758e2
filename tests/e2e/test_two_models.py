"""Two models on one device, all processes real: each is rolled out, updated and taken away without the other noticing."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import write_pair_bundle
from tests.support.waiting import wait_until
from wavegate_agent.sdk import Client
from wavegate_server.demo.fleet import DemoDevice, Fleet
from wavegate_server.demo.processes import Processes
from wavegate_shared.errors import WavegateError

pytestmark = pytest.mark.e2e

DEVICE = DemoDevice("gate-1", "gateway", "berlin", threads=1, memory_mb=256)
MODELS = ("pairs", "stamps")
PAIRS = [("abc def", "abc xyz")]
AT_ONCE = (
    "--waves",
    "all=100%",
    "--soak",
    "0s",
    "--probation",
    "0s",
    "--probation-requests",
    "0",
    "--idle-wave",
    "promote",
    "--few-canaries",
    "wide",
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Processes(tmp_path / "logs") as processes:
        made = Fleet(tmp_path, processes)
        made.start_server()
        for model in MODELS:
            for version, floor in ((1, 0.9), (2, 0.8)):
                bundle = write_pair_bundle(tmp_path / f"{model}-{version}", floor=floor, model=model)
                made.wavegate("model", "import", str(bundle))
                made.wavegate("model", "publish", model, str(version))
        made.bring_up([DEVICE], lambda _: None)
        yield made
        made.api.close()


def roll_out(fleet: Fleet, model: str, version: int) -> dict[str, Any]:
    """A rollout of a version to every device, followed to its end."""
    made = fleet.wavegate("rollout", "create", model, str(version), "--devices", "all", *AT_ONCE)
    name = made["id"]
    wait_until(lambda: fleet.rollout(name)["state"] in ("completed", "rolled_back", "cancelled"), f"{model} {version}")
    return fleet.rollout(name)


def runs(fleet: Fleet) -> dict[str, int]:
    """Version by model, as the server knows it."""
    return {slot["model"]: slot["version"] for slot in fleet.api.get(f"/devices/{DEVICE.id}")["slots"]}


def answers(path: Path, model: str) -> int:
    """The version of a model that answers on the device's socket."""
    with Client(path, model) as client:
        return client.infer_text_pairs(PAIRS).version


def index(path: Path) -> dict[str, int]:
    """What the device's socket lists."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        data = b""
        while more := sock.recv(65536):
            data += more
    return {model["name"]: int(model["version"]) for model in json.loads(data.partition(b"\r\n\r\n")[2])}


def test_two_models_live_beside_each_other(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "devices" / DEVICE.id / "infer.sock"
    assert roll_out(fleet, "pairs", 1)["state"] == "completed"
    assert roll_out(fleet, "stamps", 1)["state"] == "completed"
    wait_until(lambda: runs(fleet) == {"pairs": 1, "stamps": 1}, "both in the inventory")
    assert {model: answers(path, model) for model in MODELS} == {"pairs": 1, "stamps": 1}

    second = roll_out(fleet, "stamps", 2)
    assert second["state"] == "completed"
    assert {model: answers(path, model) for model in MODELS} == {"pairs": 1, "stamps": 2}
    assert index(path) == {"pairs": 1, "stamps": 2}
    assert len([r for r in fleet.reports(DEVICE.id) if r["model"] == "pairs"]) == 1, (
        "nothing happened to the first model"
    )

    fleet.wavegate("rollout", "rollback", second["id"])
    wait_until(lambda: fleet.rollout(second["id"])["state"] == "rolled_back", "the way back")
    assert {model: answers(path, model) for model in MODELS} == {"pairs": 1, "stamps": 1}

    why = fleet.wavegate("device", "why", DEVICE.id, "--model", "pairs")
    assert (why["model"], why["version"]) == ("pairs", 1)
    assert all("stamps" not in step["sentence"] for step in why["steps"])

    fleet.wavegate("device", "remove-model", DEVICE.id, "stamps", "--reason", "no camera any more")
    wait_until(lambda: index(path) == {"pairs": 1}, "the end of the second model")
    assert answers(path, "pairs") == 1
    with pytest.raises(WavegateError, match="stamps"):
        answers(path, "stamps")
    wait_until(lambda: runs(fleet)["stamps"] == 0, "the word of it")
    assert fleet.reports(DEVICE.id)[-1]["outcome"] == "removed"
