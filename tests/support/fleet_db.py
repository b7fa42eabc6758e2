"""A server's database with devices and versions in it, and devices that answer: for tests of stores and engine."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from sqlalchemy import Engine, event
from sqlmodel import col, select

from wavegate_server.adapters.database.connection import open_engine, read, sqlite_url, write
from wavegate_server.adapters.database.tables import (
    Device,
    DeviceSlot,
    Model,
    Outbox,
    Rollout,
    RolloutDevice,
    TelemetryWindow,
    Version,
)
from wavegate_server.adapters.store.assignments import AssignmentWriter
from wavegate_server.adapters.store.device_messages import DeviceMessageStore, Verified
from wavegate_server.adapters.store.rollouts import create_rollout
from wavegate_server.adapters.trust.director import Director
from wavegate_server.core.rollout.late_joiners import Choice
from wavegate_server.migrations import upgrade
from wavegate_shared.assignment import ASSIGNMENT_TYPE, Assignment
from wavegate_shared.chunks import Chunk
from wavegate_shared.dsse import open_signed
from wavegate_shared.histogram import Histogram
from wavegate_shared.manifest import Artifact, Golden, Manifest, Slo, encode_manifest
from wavegate_shared.metrics import Metric
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.topics import Topics, shard_of
from wavegate_shared.wire import Assign, Hello, Report, StateEvent, decode_down

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
MODEL = "address-match"


def manifest(version: int, *, slo: Slo | None = None, metric: str = "accuracy", unit: str = "share") -> Manifest:
    """A small valid manifest."""
    artifacts = [
        Artifact(
            name="model.onnx", role="model", sha256=f"{version:064x}", size_bytes=10, chunks=[Chunk("00" * 16, 10)]
        ),
        Artifact(name="golden.npz", role="golden", sha256="b" * 64, size_bytes=5, chunks=[Chunk("11" * 16, 5)]),
    ]
    return Manifest(
        schema=1,
        model=MODEL,
        version=version,
        created="2026-03-01T00:00:00Z",
        task="pair-classification",
        artifacts=artifacts,
        inputs=[],
        outputs=[],
        metric=Metric(name=metric, unit=unit),
        golden=Golden(artifact="golden.npz", limit=0.9, samples=10),
        slo=slo or Slo(),
    )


@dataclass
class Metadata:
    """An image repository of which only the numbers matter."""

    resigned: int = 0

    def meta_min(self, model: str) -> dict[str, int]:
        return {"snapshot": 3, f"release/{model}": 2}

    def resign_online(self, now: datetime) -> bool:
        self.resigned += 1
        return False


@dataclass
class FleetDb:
    """The database and what is needed to talk about it."""

    engine: Engine
    director: Director
    key: Any
    now: datetime = START
    metadata: Metadata = field(default_factory=Metadata)
    topics: Topics = field(default_factory=Topics)
    seq: int = 0

    @property
    def orders(self) -> AssignmentWriter:
        return AssignmentWriter(self.director, self.metadata, self.topics)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def device(self, name: str, *, version: int = 1, hardware_class: str = "pi4", site: str = "a") -> None:
        """An active device that runs `version` (0: nothing)."""
        with write(self.engine) as session:
            session.add(
                Device(
                    id=name,
                    hardware_class=hardware_class,
                    site=site,
                    shard=shard_of(name),
                    state="active",
                    created_at=self.now,
                    last_seen=self.now,
                )
            )
            if version:
                session.add(DeviceSlot(device_id=name, model=MODEL, version=version, state="idle"))

    def runs(self, name: str, version: int, model: str = MODEL) -> None:
        """A device says that it runs a version."""
        with write(self.engine) as session:
            session.merge(DeviceSlot(device_id=name, model=model, version=version, state="idle"))

    def version(self, number: int, *, state: str = "published", **changes: Any) -> None:
        """A version, published unless told otherwise."""
        data = encode_manifest(manifest(number, **changes))
        with write(self.engine) as session:
            if session.get(Model, MODEL) is None:
                session.add(Model(name=MODEL, created_at=self.now))
            session.add(
                Version(
                    model=MODEL,
                    number=number,
                    state=state,
                    created_at=self.now,
                    manifest=data,
                    manifest_sha256="c" * 64,
                    size_bytes=15,
                )
            )

    def rollout(self, version: int, devices: list[str], *, choice: Choice | None = None, **policy: Any) -> str:
        """A rollout of `version`, decided by the gate alone unless told otherwise."""
        with write(self.engine) as session:
            return create_rollout(
                session,
                model=MODEL,
                version=version,
                devices=devices,
                policy={"few_canaries": "wide", **policy},
                actor="ana",
                now=self.now,
                choice=choice,
            )

    def says(self, name: str, state: DeviceState, *, seq: int, version: int = 2, **more: Any) -> None:
        """A state message from a device."""
        self.seq += 1
        event = StateEvent(
            boot=1,
            seq=self.seq,
            at=self.now,
            assignment_seq=seq,
            slot=MODEL,
            model=MODEL,
            version=version,
            state=state,
            **more,
        )
        with write(self.engine) as session:
            DeviceMessageStore(self.topics).apply_up(session, name, event, self.now)

    def report(
        self, name: str, outcome: Outcome, *, seq: int, version: int = 2, active: int = 2, **more: Any
    ) -> Verified:
        """A signed report from a device, taken in."""
        self.seq += 1
        report = Report(
            device=name,
            boot=1,
            seq=self.seq,
            at=self.now,
            assignment_seq=seq,
            rollout=more.pop("rollout", None),
            slot=MODEL,
            model=MODEL,
            version=version,
            sha256="d" * 64,
            outcome=outcome,
            active_version=active,
            **more,
        )
        verified = Verified(report, b"envelope %d" % self.seq)
        self.take(name, verified)
        return verified

    def take(self, name: str, message: Verified | Hello) -> None:
        """Any message of a device, taken in."""
        with write(self.engine) as session:
            DeviceMessageStore(self.topics).apply_up(session, name, message, self.now)

    def window(self, name: str, version: int, *, right: int, **more: Any) -> None:
        """One second of telemetry, see `second_of_traffic`."""
        self.store([second_of_traffic(name, version, right=right, **more)])

    def store(self, rows: list[TelemetryWindow]) -> None:
        """Telemetry, as ingest would have written it."""
        with write(self.engine) as session:
            session.add_all(rows)

    def row(self, rollout_id: str, name: str) -> RolloutDevice:
        """A device's row in a rollout."""
        with read(self.engine) as session:
            return session.get_one(RolloutDevice, (rollout_id, name))

    def state(self, rollout_id: str) -> str:
        """A rollout's state."""
        with read(self.engine) as session:
            return session.get_one(Rollout, rollout_id).state

    def outbox(self) -> list[Outbox]:
        """What waits or was sent, in order."""
        with read(self.engine) as session:
            return list(session.exec(select(Outbox).order_by(col(Outbox.id))))

    def assignments(self, name: str) -> list[Assignment]:
        """All assignments queued for a device, opened with the director's key."""
        found = [decode_down(row.payload) for row in self.outbox() if row.topic == self.topics.cmd(name)]
        envelopes = [bytes(message.envelope) for message in found if isinstance(message, Assign)]
        return [open_signed(envelope, Assignment, ASSIGNMENT_TYPE, [self.key]) for envelope in envelopes]


def second_of_traffic(
    name: str, version: int, *, right: int, labels: int = 20, slow: int = 0, errors: int = 0, at: float = 0.0
) -> TelemetryWindow:
    """One second at `at` seconds after START: 50 requests, `slow` of them slow, `right` of `labels` answers right."""
    histogram = Histogram()
    histogram.add(10.0, 50 - slow)
    if slow:
        histogram.add(200.0, slow)
    start = int((START.timestamp() + at) * 1000)
    return TelemetryWindow(
        device_id=name,
        slot=MODEL,
        model=MODEL,
        version=version,
        start=start,
        seconds=1.0,
        received=start,
        requests=50,
        errors=errors,
        latency=histogram.encode(),
        score_sum=float(right),
        score_count=labels,
        rss_mb=80.0,
    )


@contextmanager
def fleet_db(directory: Path, *, devices: int = 0) -> Iterator[FleetDb]:
    """A migrated database; with `devices`, that many devices on version 1 and versions 1 and 2 published."""
    (directory / "fleet.db").write_bytes(_migrated())
    engine = open_engine(sqlite_url(directory / "fleet.db"))
    event.listen(engine, "connect", _hurry)
    signer = CryptoSigner.generate_ecdsa()
    db = FleetDb(engine, Director(signer, CryptoSigner.generate_ecdsa()), signer.public_key)
    try:
        if devices:
            db.version(1)
            db.version(2)
        for number in range(devices):
            db.device(f"locker-{number:02}", site=f"site-{number % 4}", hardware_class="pi4" if number % 2 else "x86")
        yield db
    finally:
        engine.dispose()


def _hurry(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")  # no test here cuts the power


@cache
def _migrated() -> bytes:
    """An empty migrated database, made once: migrating costs more than most tests."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "empty.db"
        engine = open_engine(sqlite_url(path))
        upgrade(engine)
        engine.dispose()
        return path.read_bytes()
