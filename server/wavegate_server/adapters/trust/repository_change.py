"""One change of the image repository: load, edit, sign, commit. All signers are found before the first byte is written."""

from datetime import datetime, timedelta

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_server.adapters.trust.repository_files import RepositoryFiles, Signed
from wavegate_shared.dsse import Signer
from wavegate_shared.errors import UsageError

__all__ = ["EXPIRY", "Change", "expiry_of", "sign"]

EXPIRY = {
    "root": timedelta(days=365),
    "targets": timedelta(days=180),
    "release": timedelta(days=90),
    "bench": timedelta(days=90),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(days=2),
}
"""How long each role's metadata are valid: what an attacker can freeze, against how often people must sign."""


def expiry_of(role: str, now: datetime) -> datetime:
    """When metadata of a role signed now end; TUF counts in whole seconds."""
    return now.replace(microsecond=0) + EXPIRY[role.partition("/")[0]]


def sign(metadata: Metadata[Signed], *signers: Signer) -> None:
    """Replace the signatures. Raises UsageError `key_missing` when a signer fails (a token was pulled, a service is down)."""
    metadata.signatures.clear()
    for signer in signers:
        try:
            metadata.sign(signer, append=True)
        except UnsignedMetadataError as error:
            raise UsageError("key_missing", f"the signer did not sign: {error}") from error


class Change:
    """Edits towards one commit. Made and committed inside `RepositoryFiles.changing()`.

    Attributes:
        now: the time everything is signed at.
    """

    def __init__(self, store: RepositoryFiles, keys: KeyStore, now: datetime) -> None:
        self.now = now
        self._store = store
        self._keys = keys
        self._roles: dict[str, Metadata[Targets]] = {}
        self._files: dict[str, bytes] = {}
        fresh = not store.ready
        self._timestamp = _unborn(Timestamp()) if fresh else store.timestamp()
        self._snapshot = _unborn(Snapshot(meta={})) if fresh else store.snapshot()

    def has(self, role: str) -> bool:
        """Whether the role exists."""
        return f"{role}.json" in self._snapshot.signed.meta or role in self._roles

    def look(self, role: str) -> Targets:
        """A role's signed part for reading; the edited one when it is being edited."""
        if role in self._roles:
            return self._roles[role].signed
        return self._store.targets(role, self._snapshot.signed.meta[f"{role}.json"].version).signed

    def edit(self, role: str) -> Targets:
        """A role's signed part for editing, made when it does not exist; it is signed anew at the commit."""
        if role not in self._roles:
            metadata = Metadata(self.look(role)) if self.has(role) else _unborn(Targets())
            metadata.signed.version += 1
            self._roles[role] = metadata
        return self._roles[role].signed

    def add_file(self, path: str, data: bytes) -> None:
        """A target file to store with the commit."""
        self._files[path] = data

    def commit(self, *, snapshot: bool = True) -> None:
        """Sign and write: files, roles, snapshot (unless only the timestamp is to be renewed), timestamp.

        Raises:
            UsageError: `key_missing`; then nothing was written.
        """
        for role, metadata in self._roles.items():
            metadata.signed.expires = expiry_of(role, self.now)
            sign(metadata, self._keys.signer(role))
            self._snapshot.signed.meta[f"{role}.json"] = MetaFile(version=metadata.signed.version)
        if snapshot or self._roles:
            self._renew(self._snapshot, "snapshot")
            self._timestamp.signed.snapshot_meta = MetaFile(version=self._snapshot.signed.version)
        self._renew(self._timestamp, "timestamp")
        for path, data in self._files.items():
            self._store.write_target(path, data)
        self._store.commit(self._roles, self._snapshot if snapshot or self._roles else None, self._timestamp)
        self._store.prune(self._snapshot.signed)

    def _renew(self, metadata: Metadata[Signed], role: str) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = expiry_of(role, self.now)
        sign(metadata, self._keys.signer(role))


def _unborn(signed: Signed) -> Metadata[Signed]:
    signed.version = 0  # the first commit makes it 1
    return Metadata(signed)
