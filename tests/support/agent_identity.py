"""The identity files of an enrolled device."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.tuf_world import DEVICE, World
from wavegate_agent.config import Identity
from wavegate_shared.dsse import Key, key_from_pem

__all__ = ["AUTHORITY", "TestAuthority", "enrolled"]


class TestAuthority:
    """A server's authority, as far as devices' certificates go."""

    __test__ = False

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        begins = datetime(2020, 1, 1, tzinfo=UTC)
        self._certificate = self._sign("Test CA", self._key.public_key(), begins, begins + timedelta(days=36500), 1)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime, serial: int) -> bytes:
        """A certificate for the device's key."""
        return self._sign(DEVICE, key, begins, ends, serial).public_bytes(serialization.Encoding.PEM)

    def answer(self, csr: str, begins: datetime, ends: datetime, serial: int) -> str:
        """A certificate for a request."""
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self.issue(key, begins, ends, serial).decode()

    def _sign(
        self, common: str, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime, serial: int
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")]))
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .sign(self._key, hashes.SHA256())
        )


AUTHORITY = TestAuthority()


def enrolled(state: Path, world: World, *, begun_days: float = 1, ends_days: float = 30, **changes: Any) -> Key:
    """Write an identity as enrolment does; returns the device's public key."""
    directory = state / "identity"
    directory.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    begins, ends = world.now - timedelta(days=begun_days), world.now + timedelta(days=ends_days)
    certificate = AUTHORITY.issue(key.public_key(), begins, ends, 2)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    identity = {
        "device": DEVICE,
        "hardware_class": "arm",
        "site": "Hall 1",
        "shard": 3,
        "topic_prefix": "wavegate/v1",
        "broker_host": "localhost",
        "broker_port": 8883,
        "server_url": "https://localhost:8443",
    }
    for file, data in (
        ("device.key", private),
        ("device.pem", certificate),
        ("ca.pem", AUTHORITY.pem),
        ("root.json", world.bootstrap),
        ("agent.json", msgspec.json.encode(msgspec.convert({**identity, **changes}, Identity))),
    ):
        (directory / file).write_bytes(data)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key_from_pem(public)
