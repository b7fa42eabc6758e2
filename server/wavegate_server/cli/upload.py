"""A bundle on its way to the server: zipped where it is a directory, read in pieces, with a bar for people."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from wavegate_shared.errors import UsageError

__all__ = ["upload_progress", "zipped"]


@contextmanager
def zipped(path: Path) -> Iterator[Path]:
    """The bundle as a zip: the file itself, or a temporary zip of the directory, gone afterwards."""
    if path.is_file():
        yield path
        return
    if not (path / "bundle.yaml").is_file():
        raise UsageError("bundle_invalid", f"{path} holds no bundle.yaml")
    with tempfile.TemporaryDirectory(prefix="wavegate-") as scratch:
        archive = Path(scratch) / f"{path.resolve().name}.zip"
        with zipfile.ZipFile(
            archive, "w", zipfile.ZIP_STORED
        ) as out:  # weights do not compress; the sum is checked anyway
            for file in sorted(item for item in path.rglob("*") if item.is_file() and not item.is_symlink()):
                out.write(file, file.relative_to(path))
        yield archive


@contextmanager
def upload_progress(archive: Path, *, quiet: bool) -> Iterator["_Counted"]:
    """The archive opened for the upload; what is read of it moves a bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        archive.open("rb") as file,
        Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar,
    ):
        task = bar.add_task(f"uploading {archive.name}", total=os.fstat(file.fileno()).st_size)

        def moved(size: int) -> None:
            bar.advance(task, size)
            if bar.finished:
                bar.update(task, description="the server checks the bundle")

        yield _Counted(file, moved)


class _Counted:
    """A file that tells how much of it was read; only what httpx needs of a file."""

    def __init__(self, file: BinaryIO, moved: Any) -> None:
        self._file = file
        self._moved = moved

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._moved(len(data))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()
