"""An uploaded file for the time of one request."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import UploadFile

from wavegate_server.api.context import Context
from wavegate_shared.errors import UsageError

__all__ = ["stored_upload"]

_BLOCK = 1 << 20


@contextmanager
def stored_upload(upload: UploadFile, context: Context) -> Iterator[tuple[Path, str]]:
    """The upload as a file of its own, with its SHA-256; the file is gone afterwards."""
    place = context.settings.data_dir / "uploads"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".zip", dir=place)
    path = Path(name)
    try:
        yield path, _copy(upload, handle, path)
    finally:
        path.unlink(missing_ok=True)


def _copy(upload: UploadFile, handle: int, path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as file:
            while block := upload.file.read(_BLOCK):
                digest.update(block)
                file.write(block)
    except OSError as error:
        raise UsageError("setup", f"the upload could not be kept below {path.parent}: {error.strerror}") from error
    return digest.hexdigest()
