"""Files that survive a power cut, and a lock between processes.

Order of a write: temporary file beside the target, fsync, rename, fsync of the directory. Afterwards the name holds either
the old bytes or the new ones, whole. Measured on ext4 and XFS: without the two fsyncs a cut leaves empty files.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["locked", "make_directory", "write_durable"]

PRIVATE = 0o600
"""Mode of secret files."""


def write_durable(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `data`, atomically and durably; the file never exists with wider rights than `mode`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """The directory, with its parents, durably there; an existing one keeps its rights."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    _sync_directory(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock (`flock` on `path`) between threads and processes; it ends with the process."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
