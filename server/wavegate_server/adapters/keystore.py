"""Signing keys by role, each named by a signer URI. (signatures; body follows)"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wavegate_shared.dsse import Key, Signer

__all__ = ["KeyPlace", "KeyStatus", "KeyStore"]


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


class KeyStore:
    """Keys below one directory: public parts and signer URIs in `keys.json`, private files 0600."""

    def __init__(self, directory: Path) -> None:
        raise NotImplementedError

    def init(self) -> None:
        """Create every key of the quick start that does not exist yet; a repeated call changes nothing."""
        raise NotImplementedError

    def signer(self, role: str) -> Signer:
        """The signer of a role; `release/<model>` falls back to the shared `release`. UsageError `key_missing`."""
        raise NotImplementedError

    def public(self, role: str) -> Key:
        """The public key of a role. UsageError `key_missing`."""
        raise NotImplementedError

    def status(self) -> list[KeyStatus]:
        """All known keys."""
        raise NotImplementedError
