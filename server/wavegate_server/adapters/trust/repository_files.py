"""The files of the image repository: names, reading, and a commit that a crash cannot leave half done.

    metadata/<n>.root.json                 every root ever: a device that slept follows the chain
    metadata/<n>.<role, URL-quoted>.json   targets, snapshot and release roles (consistent snapshots)
    metadata/timestamp.json                the commit point: written last, names the snapshot
    targets/<dir>/<sha256>.<file>          targets under their digest, as TUF clients ask for them

What timestamp.json does not lead to does not count: after a crash the next commit writes over it. Not here: roles and
rules (`adapters/trust/image_repository`).
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from wavegate_server.adapters.files.durable import locked, make_directory, write_durable
from wavegate_shared.errors import UsageError

__all__ = ["KEEP_VERSIONS", "RepositoryFiles", "target_name"]

Signed = TypeVar("Signed", Root, Snapshot, Targets, Timestamp)

KEEP_VERSIONS = 10
"""Superseded snapshots and targets metadata kept for devices that are in the middle of a refresh."""

_METADATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9%._-]{0,200}\.json")
_TARGET_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9%._-]{0,250}")
_COMPACT = JSONSerializer(compact=True)


def target_name(path: str, sha256: str) -> str:
    """The document name of a target: its digest stands before the file name."""
    directory, _, name = path.rpartition("/")
    return f"targets/{directory}/{sha256}.{name}" if directory else f"targets/{sha256}.{name}"


class RepositoryFiles:
    """Reads and writes below one directory; holds no state."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._metadata = directory / "metadata"

    @property
    def ready(self) -> bool:
        """Whether a first commit was made."""
        return (self._metadata / "timestamp.json").is_file()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Holds the repository's lock, between threads and processes."""
        make_directory(self._metadata)
        with locked(self._directory / ".lock"):
            yield

    def document(self, name: str) -> bytes | None:
        """The bytes of a document by its name; None for no such name, and for any name that is not one."""
        area, _, rest = name.partition("/")
        parts = rest.split("/")
        if area == "metadata":
            known = len(parts) == 1 and _METADATA_NAME.fullmatch(rest) is not None
        else:
            known = area == "targets" and len(parts) <= 4 and all(_TARGET_PART.fullmatch(part) for part in parts)
        try:
            return self._directory.joinpath(area, *parts).read_bytes() if known else None
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def root_version(self) -> int:
        """The newest root's version; 0 when there is none."""
        version = 0
        while (self._metadata / f"{version + 1}.root.json").is_file():
            version += 1
        return version

    def root(self) -> Metadata[Root]:
        """The newest root."""
        return self._load(f"{self.root_version()}.root")

    def timestamp(self) -> Metadata[Timestamp]:
        """The current timestamp."""
        return self._load("timestamp")

    def snapshot(self) -> Metadata[Snapshot]:
        """The snapshot that the timestamp names."""
        return self._load(f"{self.timestamp().signed.snapshot_meta.version}.snapshot")

    def targets(self, role: str, version: int) -> Metadata[Targets]:
        """The metadata of a targets role at a version."""
        return self._load(f"{version}.{quote(role, safe='')}")

    def write_root(self, root: Metadata[Root]) -> None:
        """A new root, durable; devices see it at once."""
        self._write(f"{root.signed.version}.root.json", root)

    def write_target(self, path: str, data: bytes) -> None:
        """A target under its digest, durable."""
        place = self._directory / target_name(path, hashlib.sha256(data).hexdigest())
        make_directory(place.parent)
        write_durable(place, data)

    def commit(
        self, roles: dict[str, Metadata[Targets]], snapshot: Metadata[Snapshot] | None, timestamp: Metadata[Timestamp]
    ) -> None:
        """Everything signed, in an order that always leaves a valid repository: roles, snapshot, and timestamp last."""
        for role, metadata in roles.items():
            self._write(f"{metadata.signed.version}.{quote(role, safe='')}.json", metadata)
        if snapshot is not None:
            self._write(f"{snapshot.signed.version}.snapshot.json", snapshot)
        self._write("timestamp.json", timestamp)

    def prune(self, snapshot: Snapshot) -> None:
        """Remove metadata so old that no refresh can still be after it. Roots and targets stay."""
        current = {quote(name.removesuffix(".json"), safe=""): meta.version for name, meta in snapshot.meta.items()}
        current["snapshot"] = snapshot.version
        for path in self._metadata.glob("*.json"):
            number, _, role = path.name.removesuffix(".json").partition(".")
            if number.isdigit() and role in current and int(number) <= current[role] - KEEP_VERSIONS:
                path.unlink(missing_ok=True)

    def _load(self, name: str) -> Metadata[Any]:
        path = self._metadata / f"{name}.json"
        try:
            return Metadata.from_bytes(path.read_bytes())
        except (RepositoryError, OSError) as error:
            raise UsageError("setup", f"{path} cannot be read ({error}); restore it from a backup") from error

    def _write(self, name: str, metadata: Metadata[Signed]) -> None:
        write_durable(self._metadata / name, metadata.to_bytes(_COMPACT))
