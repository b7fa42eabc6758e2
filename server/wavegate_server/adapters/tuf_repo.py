"""The image repository (TUF): which versions exist and are valid. (signatures; body follows)"""

from datetime import datetime
from pathlib import Path

from wavegate_server.adapters.keystore import KeyStore

__all__ = ["TufRepo"]


class TufRepo:
    """TUF metadata and targets below one directory; safe between threads and processes (file lock)."""

    def __init__(self, directory: Path, keystore: KeyStore) -> None:
        raise NotImplementedError

    def init(self, now: datetime) -> None:
        """Create root (2 of 3), targets, snapshot and timestamp; a repeated call changes nothing."""
        raise NotImplementedError

    def ensure_model(self, model: str, now: datetime) -> None:
        """Delegate `<model>/*` to role `release/<model>`, unless it is."""
        raise NotImplementedError

    def publish(self, model: str, number: int, manifest: bytes, now: datetime) -> None:
        """Sign a version in; delegates the model when needed. Same bytes again: nothing changes. Raises UsageError
        `conflict` (other bytes under this number, or revoked), TrustError `manifest_invalid`, UsageError `key_missing`."""
        raise NotImplementedError

    def revoke(self, model: str, number: int, now: datetime, min_seq: int | None = None) -> None:
        """Drop a version from the list; with `min_seq` also refuse every version below it, for ever."""
        raise NotImplementedError

    def resign_online(self, now: datetime) -> bool:
        """Sign snapshot and timestamp anew when due (cheap to call often); whether anything was signed."""
        raise NotImplementedError

    def read(self, name: str) -> bytes | None:
        """A document for devices: `metadata/<file>` or `targets/<dir>/<sha256>.<file>`; None when there is none."""
        raise NotImplementedError

    def root_bytes(self) -> bytes:
        """The newest root, which an enrolling device starts from."""
        raise NotImplementedError

    def versions(self) -> dict[str, int]:
        """Role -> metadata version (root, timestamp, snapshot, targets, release/<model>, ...): for `meta_min`."""
        raise NotImplementedError

    def meta_min(self, model: str) -> dict[str, int]:
        """The part of `versions` an assignment of this model should ask for."""
        raise NotImplementedError
