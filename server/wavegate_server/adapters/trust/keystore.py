"""Signing keys by role: public parts and signer URIs in `keys.json`, private files beside it (0600).

A key is named by a signer URI. `file:<path>` (relative to the key directory) is read here; every other scheme (PKCS#11,
TPM, a cloud's key service) is handed to securesystemslib, so that a role can move to hardware without a change elsewhere.
A `file:` key whose file is not there is *offline*: its role cannot sign here, and whoever needs it is told what to do.
Not here: what the keys sign (`adapters/trust/image_repository`, `director`), certificates (`authority`).
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from wavegate_server.adapters.files.durable import PRIVATE, locked, make_directory, write_durable
from wavegate_shared.dsse import Key, Signer, key_from_dict, signer_from_pem, signer_from_uri
from wavegate_shared.errors import UsageError

__all__ = ["QUICK_START_ROLES", "ROOT_ROLES", "KeyPlace", "KeyStatus", "KeyStore"]

ROOT_ROLES = ("root-1", "root-2", "root-3")
"""The three keys of the TUF root; any two of them sign."""
QUICK_START_ROLES = (*ROOT_ROLES, "targets", "release", "snapshot", "timestamp", "director", "time")
"""`release` signs for every model that has no key of its own (`release/<model>`)."""
_SHARED_RELEASE = "release"
_NEXT = ".next"


class KeyPlace(StrEnum):
    """Where a private key is: a file on this machine, a file that is not here, or a device or service that signs."""

    ONLINE = "online"
    OFFLINE = "offline"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key, for `wavegate keys status` and the doctor."""

    role: str
    keyid: str
    scheme: str
    uri: str
    place: KeyPlace


@dataclass(frozen=True, slots=True)
class _Entry:
    uri: str
    keyid: str
    key: dict[str, Any]


class KeyStore:
    """The keys of one installation. Reads `keys.json` on every call, so another process' change is seen at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def init(self) -> None:
        """Create every key of the quick start that is not registered yet; a repeated call changes nothing."""
        for role in QUICK_START_ROLES:
            self.create(role)

    def create(self, role: str) -> Key:
        """The role's own public key; made (Ed25519, as a file) when the role has none."""
        make_directory(self.directory, mode=0o700)
        with self._lock():
            entry = self._entries().get(role)
            return _public(entry) if entry else self._generate(role)

    def pending(self, role: str) -> Key:
        """The key that will follow the role's present one, made on the first call; its signer is `signer(role + ".next")`."""
        self._entry(role)
        return self.create(f"{role}{_NEXT}")

    def promote(self, role: str) -> None:
        """Let the pending key be the role's key from now on; the old private file, when it is here, is destroyed.

        Raises:
            UsageError: `conflict` when there is no pending key.
        """
        with self._lock():
            entries = self._entries()
            coming = entries.pop(f"{role}{_NEXT}", None)
            if coming is None:
                raise UsageError("conflict", f"no key waits to follow the one of {role}")
            old = entries.get(role)
            self._store({**entries, role: coming})
            file = self._file(old) if old is not None else None
            if file is not None:
                file.unlink(missing_ok=True)

    def has_own(self, role: str) -> bool:
        """Whether the role has a key of its own (the shared release key does not count)."""
        return role in self._entries()

    def signer(self, role: str) -> Signer:
        """The signer of a role; `release/<model>` falls back to the shared `release`.

        Raises:
            UsageError: `key_missing`, with what to do.
        """
        entry = self._entry(role)
        file = self._file(entry)
        if file is None:
            return signer_from_uri(entry.uri, _public(entry))
        try:
            signer = signer_from_pem(file.read_bytes())
        except FileNotFoundError as error:
            raise UsageError("key_missing", _offline(role, file)) from error
        except (OSError, ValueError) as error:
            raise UsageError("key_missing", f"the key file of {role} ({file}) cannot be read: {error}") from error
        if signer.public_key.keyid != entry.keyid:
            raise UsageError("key_missing", f"{file} holds another key than the one registered for {role}")
        return signer

    def public(self, role: str) -> Key:
        """The public key of a role, whether or not its private part is here. Raises UsageError `key_missing`."""
        return _public(self._entry(role))

    def status(self) -> list[KeyStatus]:
        """Every registered key and where its private part is, in order of registration."""
        return [
            KeyStatus(role, entry.keyid, str(entry.key.get("scheme", "")), entry.uri, self._place(entry))
            for role, entry in self._entries().items()
        ]

    def key_files(self) -> list[Path]:
        """Private key files below the directory, for a check of their rights."""
        return sorted(path for path in self.directory.glob("*.pem"))

    def move(self, role: str, target: Path) -> Path:
        """Move a key file to another directory (a stick, an encrypted disk) and remember where it went.

        The copy is written and read back before the original goes. Raises UsageError `key_missing` or `conflict`.
        """
        with self._lock():
            entry = self._entry(role)
            file = self._file(entry)
            if file is None or not file.is_file():
                raise UsageError("key_missing", f"the key of {role} is not a file on this machine ({entry.uri})")
            copy = target.resolve() / file.name
            if copy.exists():
                raise UsageError("conflict", f"{copy} exists; give an empty directory")
            data = file.read_bytes()
            make_directory(copy.parent, mode=0o700)
            write_durable(copy, data, mode=PRIVATE)
            if copy.read_bytes() != data:
                raise UsageError("conflict", f"{copy} does not read back as written; the key stays where it was")
            self._register(role, _Entry(f"file:{copy}", entry.keyid, entry.key))
            file.unlink()
            return copy

    def use(self, role: str, uri: str) -> None:
        """Name another signer URI for a role's key; a `file:` that is there must hold the same key."""
        with self._lock():
            entry = self._entry(role)
            self._register(role, _Entry(uri, entry.keyid, entry.key))
            try:
                if self._place(_Entry(uri, entry.keyid, entry.key)) is KeyPlace.ONLINE:
                    self.signer(role)
            except UsageError:
                self._register(role, entry)
                raise

    def _lock(self) -> Any:
        return locked(self.directory / ".lock")

    def _generate(self, role: str) -> Key:
        private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key = signer_from_pem(private).public_key
        name = f"{quote(role.removesuffix(_NEXT), safe='')}.{key.keyid[:12]}.pem"
        write_durable(self.directory / name, private, mode=PRIVATE)
        self._register(role, _Entry(f"file:{name}", key.keyid, key.to_dict()))
        return key

    def _register(self, role: str, entry: _Entry) -> None:
        self._store({**self._entries(), role: entry})

    def _store(self, entries: dict[str, _Entry]) -> None:
        document = {"schema": 1, "keys": {name: asdict(value) for name, value in entries.items()}}
        write_durable(self.directory / "keys.json", json.dumps(document, indent=1).encode(), mode=PRIVATE)

    def _entries(self) -> dict[str, _Entry]:
        path = self.directory / "keys.json"
        try:
            document = json.loads(path.read_bytes())
            return {role: _Entry(**value) for role, value in document["keys"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError("setup", f"{path} is damaged ({error}); restore it from a backup") from error

    def _entry(self, role: str) -> _Entry:
        entries = self._entries()
        shared = _SHARED_RELEASE if role.startswith("release/") else role
        entry = entries.get(role) or entries.get(shared)
        if entry is None:
            raise UsageError("key_missing", f"no key is registered for {role}; run `wavegate keys init`")
        return entry

    def _file(self, entry: _Entry) -> Path | None:
        scheme, _, path = entry.uri.partition(":")
        return self.directory / path if scheme == "file" else None

    def _place(self, entry: _Entry) -> KeyPlace:
        file = self._file(entry)
        if file is None:
            return KeyPlace.EXTERNAL
        return KeyPlace.ONLINE if file.is_file() else KeyPlace.OFFLINE


def _public(entry: _Entry) -> Key:
    return key_from_dict(entry.keyid, dict(entry.key))


def _offline(role: str, file: Path) -> str:
    return (
        f"the key of {role} is not on this machine ({file}); connect the medium it is on, "
        f"or name its place with `wavegate keys use {role} file:<path>`"
    )
