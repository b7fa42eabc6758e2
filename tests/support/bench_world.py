"""A server with a real release list, and a bench device whose words the test speaks: what a bench round needs, no broker."""

import base64
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tests.support.api_server import Api, Clock
from tests.support.bundles import write_pair_bundle
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import DeviceAssignment, DeviceSlot
from wavegate_server.adapters.store.assignments import AssignmentDraft, AssignmentWriter
from wavegate_server.adapters.store.device_messages import DeviceMessageStore, Verified
from wavegate_server.adapters.store.rollouts import find_version
from wavegate_server.services.bench.rounds import BenchRounds
from wavegate_shared.assignment import Assignment
from wavegate_shared.states import Outcome
from wavegate_shared.wire import Bench, BenchSide, GoldenResult, Hello, Report, Running

__all__ = ["CLASS", "DEVICE", "BenchWorld", "bench_world", "zipped"]

CLASS, DEVICE, URL = "edge-a", "kiosk-1", "/api/v1/bench-rounds"


def zipped(directory: Path) -> io.BytesIO:
    """A bundle directory as an upload."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file in directory.iterdir():
            archive.write(file, file.name)
    out.seek(0)
    return out


@dataclass
class BenchWorld:
    """The server, one bench device, two bundles. `orders` and `rounds` are what the engine works with."""

    api: Api
    bundles: dict[str, Path]
    orders: AssignmentWriter
    rounds: BenchRounds
    fleet: DeviceMessageStore
    clock: Clock
    seq: int = 0
    said: list[Report] = field(default_factory=list)

    def ask(self, *names: str, **fields: Any) -> Any:
        """POST a round of these candidates."""
        files = [("original", ("original.zip", zipped(self.bundles["original"])))]
        files += [
            ("candidates", (f"{name}.zip", zipped(self.bundles.get(name, self.bundles["small"])))) for name in names
        ]
        body = {"class": CLASS, **{name: str(value) for name, value in fields.items()}}
        return self.api.client.post(URL, files=files, data=body)

    def queued(self, *names: str, **fields: Any) -> str:
        """A round in the queue."""
        answer = self.ask(*names, **fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def show(self, round_id: str) -> dict[str, Any]:
        """The round as the API tells it."""
        answer: dict[str, Any] = self.api.client.get(f"{URL}/{round_id}").json()
        return answer

    def states(self, round_id: str) -> list[str]:
        """The states of its candidates."""
        return [candidate["state"] for candidate in self.show(round_id)["candidates"]]

    def tick(self, times: int = 1) -> None:
        """What the engine does."""
        for _ in range(times):
            self.rounds.tick(self.clock())

    def hello(self, version: int = 1, state: str = "idle") -> None:
        """The device says what it runs."""
        slot = msgspec.convert({"model": "pairs", "version": version, "sha256": "a" * 64, "state": state}, Running)
        with write(self.api.context.engine) as session:
            hello = Hello(boot=1, agent_version="1", slots={"pairs": slot})
            self.fleet.apply_up(session, DEVICE, hello, self.clock())

    def order(self) -> Assignment:
        """The newest assignment of the device."""
        with read(self.api.context.engine) as session:
            envelope = session.get_one(DeviceAssignment, DEVICE).envelope
        payload = base64.b64decode(msgspec.json.decode(envelope)["payload"])
        return msgspec.json.decode(payload, type=Assignment)

    def desired(self) -> tuple[str | None, str, int]:
        """What the books say the device shall run: rollout, model, version."""
        with read(self.api.context.engine) as session:
            row = session.get_one(DeviceSlot, (DEVICE, "pairs"))
            return row.rollout_id, row.model, row.assigned_version

    def give(self, version: int = 1) -> int:
        """An order to run a version."""
        with write(self.api.context.engine) as session, self.orders.batch(session, self.clock()) as batch:
            found = find_version(session, "pairs", version)
            return batch.give(DEVICE, AssignmentDraft(found, "pairs", "r-1", 0, "because"))

    def report(self, outcome: Outcome = Outcome.BENCHED, *, p50: float = 2.0, **changes: Any) -> None:
        """The device reports on its newest order."""
        order, self.seq = self.order(), self.seq + 1
        slot = order.slots["pairs"]
        side = BenchSide(sha256="b" * 64, p50_ms=4.0, p95_ms=5.0, p99_ms=6.0, cpu_ms=3.9, peak_mb=80.0)
        figures: dict[str, Any] = {
            "p50_ms": p50,
            "p95_ms": p50 * 1.5,
            "p99_ms": p50 * 2,
            "cpu_ms": p50,
            "peak_mb": 60.0,
            "threads": 1,
        }
        fields: dict[str, Any] = {
            "device": DEVICE, "boot": 1, "seq": self.seq, "at": self.clock(), "assignment_seq": order.seq, "rollout": None,
            "slot": slot.model, "model": slot.model, "version": slot.release_seq, "sha256": slot.sha256, "outcome": outcome,
            "active_version": 1, "golden": GoldenResult(passed=True, value=0.99, limit=0.9, samples=64),
            "bench": Bench(runs=200, beside=side, **figures) if outcome is Outcome.BENCHED else None,
        }  # fmt: skip
        report = Report(**{**fields, **changes})
        with write(self.api.context.engine) as session:
            envelope = b"signed %d" % self.seq
            self.fleet.apply_up(session, DEVICE, Verified(report, envelope), self.clock())
        self.said.append(report)


@contextmanager
def bench_world(api: Api, directory: Path, *, enrolled: bool = True) -> Iterator[BenchWorld]:
    """The world; the device runs version 1 by an order of rollout r-1, and is idle."""
    context = api.context
    bundles = {
        "original": write_pair_bundle(directory / "original"),
        "small": write_pair_bundle(directory / "small", stored="float32"),
    }
    orders = AssignmentWriter(context.director, context.tuf_repo, context.settings.topics)
    rounds = BenchRounds(context.engine, context.tuf_repo, orders)
    world = BenchWorld(api, bundles, orders, rounds, DeviceMessageStore(context.settings.topics), api.clock)
    if enrolled:
        api.enrol(DEVICE, CLASS, bench=True)
        world.give()
        world.hello()
    yield world
