"""A server's data directory with everything real in it (keys, authority, database, one published model), made once and copied
for each test, and the API over it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient

from tests.support.bundles import write_pair_bundle
from wavegate_server.adapters.database.connection import open_engine, write
from wavegate_server.adapters.database.tables import METADATA, Device, Revision
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store.tokens import Role, create_token, ensure_admin_token
from wavegate_server.api import create_api
from wavegate_server.api.context import Context
from wavegate_server.config import Settings
from wavegate_server.services.first_start import initialise, open_trust
from wavegate_server.services.registry import import_bundle, publish

__all__ = ["NOW", "Api", "Clock", "csr", "open_api", "open_context", "seed_directory"]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass(frozen=True)
class Api:
    """The API over one data directory."""

    context: Context
    clock: Clock
    client: TestClient

    def token(self, role: Role) -> str:
        """A fresh token of a role."""
        with write(self.context.engine) as session:
            return create_token(session, name=f"a {role}", role=role, now=self.clock())

    def as_role(self, role: Role) -> dict[str, str]:
        """Headers of somebody with that role."""
        return {"Authorization": f"Bearer {self.token(role)}"}

    def enrol(self, device: str, hardware_class: str = "edge-a", site: str = "berlin", **extra: Any) -> dict[str, Any]:
        """Register a device and enrol it with a key of its own."""
        body = {"id": device, "class": hardware_class, "site": site, **extra}
        token = self.client.post("/api/v1/devices", json=body).json()["token"]["token"]
        answer = self.client.post("/api/v1/enrol", json={"token": token, "csr": csr(device)})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def add_active(self, **devices: dict[str, str]) -> None:
        """Put devices into the table as if they had enrolled: name -> labels; `site` among the labels is the site."""
        with write(self.context.engine) as session:
            for name, labels in devices.items():
                site = labels.pop("site", "berlin")
                device = Device(id=name.replace("_", "-"), hardware_class="edge-a", site=site, state="active", shard=0)
                device.groups, device.created_at = {"labels": labels}, self.clock()
                session.add(device)

    def rollout(self, *devices: str, version: int = 1, **policy: Any) -> dict[str, Any]:
        """Plan a rollout of `pairs` to these devices."""
        body = {"model": "pairs", "version": version, "devices": {"ids": list(devices)}, "policy": policy}
        answer = self.client.post("/api/v1/rollouts", json=body)
        assert answer.status_code == 201, answer.text
        result: dict[str, Any] = answer.json()
        return result


def seed_directory(directory: Path) -> None:
    """Fill a data directory: trust, database, an admin token, model `pairs` with version 1 published and 2 imported."""
    settings = Settings(data_dir=directory)
    initialise(settings, NOW)
    engine = open_engine(settings.db_url)
    METADATA.create_all(engine)
    with write(engine) as session:
        session.add(Revision(id=1, value=0))
    ensure_admin_token(engine, settings, NOW)
    objects, trust = Objects(settings.objects_dir), open_trust(settings)
    for number, floor in ((1, 0.9), (2, 0.8)):
        bundle = write_pair_bundle(directory / f"bundle-{number}", floor=floor)
        import_bundle(engine, objects, bundle, unchecked=False, actor="seed", now=NOW)
    publish(engine, trust.tuf_repo, "pairs", 1, actor="seed", now=NOW)
    engine.dispose()


@contextmanager
def open_context(seed: Path, directory: Path, clock: Clock) -> Iterator[Context]:
    """The context over a copy of the seed in `directory`."""
    shutil.copytree(seed, directory)
    settings = Settings(data_dir=directory, upload_limit_mb=1)
    engine = open_engine(settings.db_url)
    trust = open_trust(settings)
    yield Context(
        settings=settings,
        engine=engine,
        objects=Objects(settings.objects_dir),
        tuf_repo=trust.tuf_repo,
        director=trust.director,
        authority=trust.authority,
        keystore=trust.keystore,
        clock=clock,
    )
    engine.dispose()


@contextmanager
def open_api(seed: Path, directory: Path) -> Iterator[Api]:
    """The API over a copy of the seed, with a client that holds the admin token."""
    clock = Clock()
    with open_context(seed, directory, clock) as context:
        token = context.settings.admin_token_file.read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        with TestClient(create_api(context), base_url="https://testserver", headers=headers) as client:
            yield Api(context, clock, client)


def csr(device: str) -> str:
    """A certificate request with a fresh key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
