"""A bench round with everything real: server, broker, an agent's process enrolled for benching, the shipped model serving on it."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import yaml
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.e2e.test_agent_killed import KilledAgent
from tests.support.bundles import write_pair_bundle
from tests.support.waiting import wait_until
from wavegate_agent.sdk import Client as Inference
from wavegate_server.adapters.files import onnx_files
from wavegate_server.adapters.files.bundles import open_bundle, write_bundle
from wavegate_server.cli.upload import zipped
from wavegate_server.core.bundle_spec import artifact_roles
from wavegate_server.demo.fleet import DemoDevice, Fleet
from wavegate_server.demo.processes import Processes
from wavegate_shared.errors import WavegateError

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

TREE = Path(__file__).resolve().parents[2] / "deploy" / "models" / "address-match"
MODEL, CLASS = "address-match", "edge"
DEVICE = DemoDevice("kiosk-1", CLASS, "here", 1, 1024)


class Traffic:
    """An application that asks all the time. Attributes: answered, by version; faults; every_s, its pause."""

    def __init__(self, socket: Path) -> None:
        self.answered: dict[str, int] = {}
        self.faults: list[str] = []
        self.every_s = 0.1
        lines = (TREE / "traffic.jsonl").read_text(encoding="utf-8").splitlines()[:50]
        self._pairs = [(str(json.loads(line)["a"]), str(json.loads(line)["b"])) for line in lines]
        self._socket, self._stop = socket, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Inference(self._socket, MODEL, timeout_s=30) as client:
            at = 0
            while not self._stop.wait(self.every_s):
                at += 1
                try:
                    answer = client.infer_text_pairs([self._pairs[at % len(self._pairs)]])
                except WavegateError as error:
                    self.faults.append(str(error))
                    continue
                self.answered[str(answer.version)] = self.answered.get(str(answer.version), 0) + 1


class BenchAgent(KilledAgent):
    """An agent whose candidates run at live priority: other tests on this machine would starve one that steps back."""

    options = ("--candidate-nice", "0")


class World:
    """A fleet of one device that serves version 1 and measures candidates."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet = fleet
        self.agent = BenchAgent(directory / "devices" / DEVICE.id)
        self.bundles = candidates(directory / "candidates")

    def ask(self) -> str:
        """Start a round."""
        with ExitStack() as stack:

            def opened(path: Path) -> BinaryIO:
                return stack.enter_context(stack.enter_context(zipped(path)).open("rb"))

            files = [("original", "original.zip", opened(self.bundles["original"]))]
            files += [("candidates", f"{name}.zip", opened(self.bundles[name])) for name in ("fp32", "int8")]
            return str(self.fleet.api.send("/bench-rounds", files, {"class": CLASS, "timeout_s": "120"})["id"])

    def round(self, name: str) -> dict[str, Any]:
        return self.fleet.api.get(f"/bench-rounds/{name}")

    def finished(self, name: str) -> dict[str, Any]:
        wait_until(lambda: self.round(name)["finished_at"], "the end of the round", timeout_s=180)
        return self.round(name)

    def still_as_before(self) -> None:
        """The live version is what it was, its order stands again, the round left nothing behind."""
        wait_until(lambda: self.agent.slot().get("state") == "idle", "a device at rest")
        slot = self.agent.slot()
        assert (slot["serving"], slot["model"], slot["version"]) == (1, MODEL, 1)
        wait_until(lambda: len(list((self.agent.state / "models").glob("[0-9a-f]*"))) == 1, "only one version on disk")
        device = self.fleet.api.get(f"/devices/{DEVICE.id}")
        assert (device["model"], device["version"], device["assigned_version"]) == (MODEL, 1, 1)
        assert device["quarantined"] == []


def candidates(place: Path) -> dict[str, Path]:
    """The shipped model as the original, as it is again, and in int8."""
    made = {}
    with open_bundle(TREE / "bundle") as bundle:
        place.mkdir(parents=True)
        plain, small = place / "plain.onnx", place / "int8.onnx"
        onnx_files.prepare(bundle.model_path, plain, stored=bundle.spec.stored)
        quantize_dynamic(plain, small, per_channel=True, weight_type=QuantType.QInt8)
        document = yaml.safe_load((bundle.directory / "bundle.yaml").read_text(encoding="utf-8"))
        for name in ("calib", "eval", "plan", "parent", "source", "train"):
            document.pop(name, None)
        document["stored"] = "float32"
        names = artifact_roles(bundle.spec)
        for name, model in (("original", plain), ("fp32", plain), ("int8", small)):
            files = {file: model if file == bundle.spec.model_file else bundle.path(file) for file in names}
            write_bundle(place / name, {**document, "recipe": name}, files)
            made[name] = place / name
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("bench")
    with Processes(directory / "logs") as processes:
        fleet = Fleet(directory, processes)
        fleet.start_server()
        fleet.wavegate("model", "import", str(TREE / "bundle"))
        fleet.wavegate("model", "publish", MODEL, "1")
        place = ("--class", CLASS, "--site", "here")
        token = fleet.wavegate("device", "token", DEVICE.id, *place, "--bench")["token"]
        fleet.redeem(DEVICE, token)
        made = World(fleet, directory)
        made.agent.start()
        policy = ("--waves", "all=100%", "--soak", "0s", "--probation", "0s", "--probation-requests", "0")
        rollout = fleet.wavegate("rollout", "create", MODEL, "1", "--devices", "all", *policy)["id"]
        try:
            wait_until(
                lambda: fleet.rollout(rollout)["state"] == "completed", "the first version everywhere", timeout_s=180
            )
            yield made
        finally:
            made.agent.end()
            fleet.api.close()


def test_candidates_are_measured_while_the_live_version_serves(world: World) -> None:
    with Traffic(world.agent.state / "infer.sock") as traffic:
        name = world.ask()
        wait_until(
            lambda: world.round(name)["candidates"][0]["finished_at"], "the first candidate's figures", timeout_s=180
        )
        traffic.every_s = 4.0  # mostly nobody there: the second one need not rest
        shown = world.finished(name)
    assert (shown["state"], shown["device"]) == ("done", DEVICE.id), shown["reason"]
    fp32, int8 = shown["candidates"]
    for each in (fp32, int8):
        assert each["golden"]["passed"]
        assert each["bench"]["runs"] >= 20
        assert each["bench"]["beside"]["p50_ms"] > 0
    assert int8["size_bytes"] < 0.5 * fp32["size_bytes"]
    assert fp32["golden"]["max_difference"] < int8["golden"]["max_difference"]
    assert 0.5 < fp32["bench"]["cpu_ratio"] < 2.0  # the same file: what differs is noise
    assert traffic.faults == []
    assert set(traffic.answered) == {"1"}
    assert traffic.answered["1"] > 20
    world.still_as_before()
    reports = world.fleet.reports(DEVICE.id)
    assert [report["outcome"] for report in reports if report["version"] >= 1_000_000] == ["benched", "benched"]
    chain = [step["code"] for step in world.fleet.api.get(f"/devices/{DEVICE.id}/why")["steps"]]
    assert chain[0] == "running"


def test_a_power_cut_in_the_middle_of_a_round(world: World) -> None:
    name = world.ask()
    wait_until(
        lambda: world.agent.slot().get("state") in ("loading", "golden", "bench"), "the begin of a trial", timeout_s=60
    )
    world.agent.kill()
    world.agent.start()
    shown = world.finished(name)
    assert (shown["state"], [each["state"] for each in shown["candidates"]]) == ("done", ["benched"] * 2)
    world.still_as_before()


def test_a_compression_for_the_class_is_judged_on_the_device(world: World, tmp_path: Path) -> None:
    """The original is of another model than the one that serves there."""
    bundle = write_pair_bundle(tmp_path / "pairs")
    wanted = ("--budget", "size=-10%,drop=20pt", "--time", "90s", "--no-import", "--cache", str(tmp_path / "cache"))
    there = world.fleet.wavegate("compress", str(bundle), "--for", CLASS, *wanted, accept=(0, 3))
    assert there["measured_on"] == f"{DEVICE.id}, class {CLASS}", there["notes"]
    measured = [row for row in there["candidates"] if row["measured_on"] == there["measured_on"]]
    assert len(measured) >= 2
    assert there["device_round"]["device"] == DEVICE.id
    if there["chosen"]:
        latency = next(row for row in there["comparison"] if row["name"] == "latency p50")
        assert latency["where"] == there["measured_on"]
    world.still_as_before()
