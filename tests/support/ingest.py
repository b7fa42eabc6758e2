"""A fleet database and messages for the ingest's tests."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine
from sqlmodel import Session, select

from wavegate_server.adapters.database.connection import open_engine, write
from wavegate_server.adapters.database.tables import METADATA, Device
from wavegate_shared.dsse import seal, signer_from_pem
from wavegate_shared.histogram import Histogram
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import REPORT_TYPE, Hello, Report, SignedReport, StateEvent, Window

__all__ = ["NOW", "Handlers", "Keys", "database", "hello", "report", "rows", "state", "window"]

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Keys:
    """A device's key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_pem(self) -> str:
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return self._key.public_key().public_bytes(*form).decode()

    def seal(self, document: Report) -> bytes:
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return seal(document, REPORT_TYPE, signer_from_pem(pem))


def database(directory: Path, devices: dict[str, str], *, keys: Keys | None = None) -> Engine:
    """A database with these devices (id -> state)."""
    engine = open_engine(f"sqlite:///{directory / 'ingest.db'}")
    METADATA.create_all(engine)
    with write(engine) as session:
        for name, state_name in devices.items():
            session.add(
                Device(
                    id=name,
                    hardware_class="locker-v2",
                    site="harbour",
                    shard=0,
                    state=state_name,
                    created_at=NOW,
                    certificate_serial=f"serial-{name}",
                    public_key=keys.public_pem if keys else "",
                )
            )
    return engine


def rows(engine: Engine, table: type[Any]) -> list[Any]:
    """All rows of a table."""
    with Session(engine) as session:
        return list(session.exec(select(table)))


def window(seq: int, *, boot: int = 1, **changes: Any) -> Window:
    """The window of minute `seq`: four requests of 5, 6, 7 and 8 ms."""
    latency = Histogram()
    for each in (5.0, 6.0, 7.0, 8.0):
        latency.add(each)
    fields: dict[str, Any] = {
        "slot": "default",
        "model": "m",
        "version": 3,
        "start": NOW + timedelta(minutes=seq),
        "seconds": 60.0,
        "requests": 4,
        "errors": 1,
        "latency": latency.encode(),
        "score_sum": 3.0,
        "score_count": 4,
        "cpu_ms": 20.0,
    }
    return Window(boot=boot, seq=seq, **(fields | changes))


def state(seq: int, *, boot: int = 1) -> StateEvent:
    """The device fetches."""
    return StateEvent(
        boot=boot, seq=seq, at=NOW, assignment_seq=4, slot="default", model="m", version=3, state=DeviceState.FETCHING
    )


def hello(boot: int = 1) -> Hello:
    """The device says hello."""
    return Hello(boot=boot, agent_version="0.1")


def report(keys: Keys, device: str, seq: int, *, outer_seq: int | None = None) -> SignedReport:
    """A signed report that the version is proven."""
    inner = Report(
        device=device,
        boot=1,
        seq=seq,
        at=NOW,
        assignment_seq=4,
        rollout=None,
        slot="default",
        model="m",
        version=3,
        sha256="0" * 64,
        outcome=Outcome.PROVEN,
    )
    return SignedReport(boot=1, seq=outer_seq or seq, envelope=msgspec.Raw(keys.seal(inner)))


class Handlers:
    """Notes what it was given; `fail` makes it refuse or break."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, object]] = []
        self.fail: Callable[[object], None] = lambda _message: None

    def apply(self, session: Session, device_id: str, message: object, now: datetime) -> None:
        self.fail(message)
        self.applied.append((device_id, message))
