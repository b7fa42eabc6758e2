"""A release list in memory, signed for real, whose keys a test may steal: what the agent's trust is tested against.

Independent of the server's repository on purpose: the agent's tests run where no server is installed, and two writers of
the same format keep each other honest. `World.documents` is what a device can fetch; `World.fetch` is how.
"""

import copy
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from wavegate_shared.assignment import ASSIGNMENT_TYPE, Assignment, SlotAssignment
from wavegate_shared.chunks import Chunk
from wavegate_shared.dsse import Signer, seal, signer_from_pem
from wavegate_shared.errors import TransferError
from wavegate_shared.manifest import Artifact, Golden, Manifest, Requires, TensorSpec, encode_manifest, target_path
from wavegate_shared.metrics import Metric

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEVICE = "kiosk-1"


def new_signer() -> Signer:
    """A fresh Ed25519 signer."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return signer_from_pem(pem)


def make_manifest(version: int = 1, **changes: Any) -> Manifest:
    """A small valid manifest of model `pairs`."""
    artifact: dict[str, Any] = {"size_bytes": 4, "chunks": [Chunk("0" * 32, 4)]}
    fields: dict[str, Any] = {
        "schema": 1,
        "model": "pairs",
        "version": version,
        "created": "2026-03-01T12:00:00Z",
        "task": "pair-classification",
        "artifacts": [
            Artifact(name="model.onnx", role="model", sha256=hashlib.sha256(b"m%d" % version).hexdigest(), **artifact),
            Artifact(name="golden.npz", role="golden", sha256="b" * 64, **artifact),
        ],
        "inputs": [TensorSpec("text", "BYTES", [-1, 2])],
        "outputs": [TensorSpec("logits", "FP32", [-1, 2])],
        "metric": Metric("accuracy"),
        "golden": Golden(artifact="golden.npz", limit=0.9, samples=10),
        "requires": Requires(),
    }
    return Manifest(**{**fields, **changes})


def slot_of(data: bytes, *, model: str = "pairs", version: int = 1, **changes: Any) -> SlotAssignment:
    """What a director writes for a manifest's bytes."""
    fields: dict[str, Any] = {
        "model": model,
        "target": target_path(model, version),
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "release_seq": version,
    }
    return SlotAssignment(**{**fields, **changes})


@dataclass
class World:
    """The release list and the director, with every key in reach. Attributes: now (signing time), signers by role."""

    now: datetime = NOW
    signers: dict[str, Signer] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    fetched: list[tuple[str, int]] = field(default_factory=list)
    min_seq: dict[str, int] = field(default_factory=dict)
    offline: bool = False

    def __post_init__(self) -> None:
        for role in (
            "root-1",
            "root-2",
            "root-3",
            "targets",
            "release/pairs",
            "release/labels",
            "bench/arm",
            "snapshot",
            "timestamp",
        ):
            self.signers[role] = new_signer()
        self.signers["director"], self.signers["time"] = new_signer(), new_signer()
        self.root_version = 0
        self.roles = {name: Targets() for name in ("targets", "release/pairs", "release/labels", "bench/arm")}
        self.snapshot, self.timestamp = Snapshot(), Timestamp()
        self.publish_root()
        self.bootstrap = self.documents["metadata/1.root.json"]
        for role in self.roles:
            self.sign_role(role, bump=False)
        self.sign_online()

    # --- what a device does ------------------------------------------------------------------------------------------

    def fetch(self, name: str, max_bytes: int) -> bytes:
        """The carrier: counts what it carried."""
        if self.offline:
            raise TransferError("not_connected", name)
        data = self.documents.get(name)
        self.fetched.append((name, len(data or b"")))
        if data is None:
            raise TransferError("document_missing", name)
        return data

    # --- what the server does ----------------------------------------------------------------------------------------

    def publish(self, manifest: Manifest, *, role: str = "release/pairs", path: str | None = None) -> bytes:
        """List a manifest and sign everything; its bytes."""
        data = encode_manifest(manifest)
        self.list_target(role, path or target_path(manifest.model, manifest.version), data)
        self.sign_role(role)
        self.sign_online()
        return data

    def revoke(self, model: str, below: int) -> None:
        """Raise `min_seq` and sign."""
        self.min_seq[model] = below
        self.sign_role("targets")
        self.sign_online()

    def assign(self, slot: SlotAssignment | None = None, *, signer: Signer | None = None, **changes: Any) -> bytes:
        """A director's envelope for `DEVICE`."""
        fields: dict[str, Any] = {
            "device": DEVICE,
            "seq": 1,
            "issued": self.now,
            "expires": self.now + timedelta(days=7),
            "slots": {} if slot is None else {"main": slot},
        }
        return seal(Assignment(**{**fields, **changes}), ASSIGNMENT_TYPE, signer or self.signers["director"])

    def list_target(self, role: str, path: str, data: bytes) -> None:
        """Put a target into a role, unsigned yet."""
        digest = hashlib.sha256(data).hexdigest()
        self.roles[role].targets[path] = TargetFile(len(data), {"sha256": digest}, path)
        directory, _, name = path.rpartition("/")
        self.documents[f"targets/{directory}/{digest}.{name}"] = data

    def publish_root(self, *, signers: tuple[str, ...] = ("root-1", "root-2")) -> None:
        """The next root, with the keys as they are now."""
        self.root_version += 1
        root = Root(version=self.root_version, expires=self.now + timedelta(days=365))
        for role in ("root-1", "root-2", "root-3"):
            root.add_key(self.signers[role].public_key, "root")
        root.roles["root"].threshold = 2
        for role in ("targets", "snapshot", "timestamp"):
            root.add_key(self.signers[role].public_key, role)
        self._store(f"metadata/{self.root_version}.root.json", root, *signers)

    def sign_role(self, role: str, *, bump: bool = True, signer: str | None = None, days: float = 90) -> None:
        """Sign a targets role and enter it into the snapshot (unsigned yet)."""
        signed = self.roles[role]
        signed.version += int(bump)
        signed.expires = self.now + timedelta(days=days)
        if role == "targets":
            self._fill_top(signed)
        self._store(f"metadata/{signed.version}.{quote(role, safe='')}.json", signed, signer or role)
        self.snapshot.meta[f"{role}.json"] = MetaFile(version=signed.version)
        self.snapshot.version += 1

    def sign_online(self, *, snapshot: str = "snapshot", timestamp: str = "timestamp") -> None:
        """Sign snapshot and timestamp (with other keys, for attacks)."""
        self.snapshot.expires, self.timestamp.expires = self.now + timedelta(days=7), self.now + timedelta(days=2)
        self._store(f"metadata/{self.snapshot.version}.snapshot.json", self.snapshot, snapshot)
        self.timestamp.snapshot_meta = MetaFile(version=self.snapshot.version)
        self.timestamp.version += 1
        self._store("metadata/timestamp.json", self.timestamp, timestamp)

    def _fill_top(self, top: Targets) -> None:
        custom = {
            "director": _key_table(self.signers["director"]),
            "time": _key_table(self.signers["time"]),
            "min_seq": dict(self.min_seq),
        }
        data = json.dumps(custom, sort_keys=True).encode()
        digest = {"sha256": hashlib.sha256(data).hexdigest()}
        top.targets["system/director.json"] = TargetFile(len(data), digest, "system/director.json", {"custom": custom})
        delegations = Delegations(keys={}, roles={})
        top.delegations = delegations
        for role, paths in (
            ("release/pairs", "pairs/*"),
            ("release/labels", "labels/*"),
            ("bench/arm", "bench/arm/*"),
        ):
            assert delegations.roles is not None
            delegations.roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=[paths])
            top.add_key(self.signers[role].public_key, role)

    def _store(self, name: str, signed: Any, *roles: str) -> None:
        metadata: Metadata[Any] = Metadata(copy.deepcopy(signed))
        for role in roles:
            metadata.sign(self.signers[role], append=True)
        self.documents[name] = metadata.to_bytes()


def _key_table(signer: Signer) -> dict[str, Any]:
    return {signer.public_key.keyid: signer.public_key.to_dict()}
