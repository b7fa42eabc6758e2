"""The image repository as this device sees it: TUF metadata, kept durably, fetched through any carrier. (signatures; body follows)"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from wavegate_agent.core.verify import TargetInfo
from wavegate_shared.dsse import Key

__all__ = ["Fetch", "ImageRepository"]

Fetch = Callable[[str, int], bytes]
"""(document name, most bytes wanted) -> bytes. Raises TransferError `document_missing` when the server says there is none,
`not_connected` or `transfer_stalled` when no answer came."""


class ImageRepository:
    """Which versions exist and are valid. One instance a process, one thread at a time; `fetch` is called from `refresh`
    and `download` on the caller's thread and blocks it, so never call them on the MQTT network thread."""

    def __init__(self, directory: Path, bootstrap: bytes, fetch: Fetch) -> None:
        """Loads what an earlier run stored (no network): keys and versions are known again after a restart."""
        raise NotImplementedError

    def refresh(self, now: datetime) -> None:
        """Newest metadata, verified against `now` (trusted time).

        Raises TrustError `metadata_stale` (expired, frozen) or `metadata_invalid` (any other failure), TransferError.
        """
        raise NotImplementedError

    @property
    def known(self) -> bool:
        """Whether verified metadata are loaded (from the store or a refresh), so that keys can be asked for."""
        raise NotImplementedError

    def director_keys(self) -> list[Key]:
        """Keys whose signature makes an assignment; empty before the first refresh ever."""
        raise NotImplementedError

    def time_keys(self) -> list[Key]:
        """Keys whose signature makes a time answer; known after a restart even when all metadata have expired."""
        raise NotImplementedError

    def min_seq(self, model: str) -> int:
        """Lowest release number of the model that is not revoked; 0 when nothing was."""
        raise NotImplementedError

    def versions(self) -> dict[str, int]:
        """Role -> metadata version."""
        raise NotImplementedError

    def target(self, path: str) -> TargetInfo:
        """What the release list says of a path (may fetch the delegated role). TrustError `version_not_listed`,
        `metadata_stale` when `refresh` has not succeeded in this process."""
        raise NotImplementedError

    def download(self, path: str) -> bytes:
        """The target's bytes, fetched and checked for length and digest. TrustError `digest_mismatch`, TransferError."""
        raise NotImplementedError
