"""Artifacts by digest: a directory or an S3 bucket behind one small interface (obstore).

An object's name is its SHA-256, so putting the same file twice stores it once, and a reader can never get something else.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore

from wavegate_shared.errors import UsageError

__all__ = ["Objects", "file_sha256"]

_BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """Digest of a file, hex; read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Objects:
    """The artifact store. `directory` is made when it is not there."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._store = LocalStore(directory)

    def put_file(self, path: Path) -> str:
        """Store a file; gives its digest. A second put of the same bytes changes nothing."""
        sha256 = file_sha256(path)
        with suppress(AlreadyExistsError):
            obstore.put(self._store, _name(sha256), path, mode="create")
        return sha256

    def size(self, sha256: str) -> int:
        """Length in bytes. Raises UsageError `not_found`."""
        try:
            return int(obstore.head(self._store, _name(sha256))["size"])
        except FileNotFoundError as error:
            raise UsageError("not_found", f"artifact {sha256[:16]} is not in the store") from error

    def exists(self, sha256: str) -> bool:
        """Whether the object is there."""
        try:
            obstore.head(self._store, _name(sha256))
        except FileNotFoundError:
            return False
        return True

    def open_range(self, sha256: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`. Raises UsageError `not_found`."""
        try:
            return bytes(obstore.get_range(self._store, _name(sha256), start=start, length=length))
        except FileNotFoundError as error:
            raise UsageError("not_found", f"artifact {sha256[:16]} is not in the store") from error

    def stream(self, sha256: str) -> Iterator[bytes]:
        """The whole object in pieces. Raises UsageError `not_found`."""
        size, at = self.size(sha256), 0
        while at < size:
            piece = self.open_range(sha256, at, min(_BLOCK, size - at))
            at += len(piece)
            yield piece

    def fetch_to(self, sha256: str, path: Path) -> None:
        """Write the object to `path`."""
        with path.open("wb") as file:
            for piece in self.stream(sha256):
                file.write(piece)


def _name(sha256: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise UsageError("not_found", "an artifact is named by a SHA-256 in hex")
    return f"{sha256[:2]}/{sha256}"
