"""The identity files of an enrolled device."""

from datetime import timedelta
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

__all__ = ["enrolled"]


def enrolled(state: Path, world: World, **changes: Any) -> Key:
    """Write an identity as enrolment does; returns the device's public key."""
    directory = state / "identity"
    directory.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEVICE)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(world.now - timedelta(days=1))
        .not_valid_after(world.now + timedelta(days=30))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
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
        ("ca.pem", certificate),
        ("root.json", world.bootstrap),
        ("agent.json", msgspec.json.encode(msgspec.convert({**identity, **changes}, Identity))),
    ):
        (directory / file).write_bytes(data)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key_from_pem(public)
