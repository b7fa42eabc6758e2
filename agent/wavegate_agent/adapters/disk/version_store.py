"""Versions on disk: content-addressed, complete or absent, never changed in place.

    models/<manifest sha256>/                 manifest.json and the artifacts by name; immutable, files are mapped by workers
    models/.staging/<manifest sha256>/        the same while it is fetched, and <artifact>.bitmap

A version appears under its final name by one rename, after every file was checked against the manifest and fsynced. A chunk
is checked before it is written, and again when a fetch resumes, so neither a power cut nor a flipped bit gets through. An
artifact that another version has already (same digest) is linked, not fetched.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from wavegate_agent.adapters.disk.durable import sync_directory, write_durably
from wavegate_shared.chunks import Bitmap, chunk_hash, offsets, verify_chunk
from wavegate_shared.errors import DeviceError, TrustError, WavegateError
from wavegate_shared.manifest import Artifact, Manifest, decode_manifest

__all__ = ["MANIFEST", "Staging", "VersionStore", "free_bytes"]

MANIFEST = "manifest.json"
_STAGING = ".staging"
_READ_BYTES = 1 << 20


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged program may still write at `path`."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


class VersionStore:
    """The versions of all slots of this device.

    Args:
        root: the `models` directory; made when missing.
        reserve_bytes: what must stay free after an install.
        free: free space of a path; a test may bring its own.
    """

    def __init__(self, root: Path, *, reserve_bytes: int = 16 << 20, free: Callable[[Path], int] = free_bytes) -> None:
        self._root = root
        self._reserve = reserve_bytes
        self._free = free
        self._verified: set[str] = set()
        (root / _STAGING).mkdir(parents=True, exist_ok=True)

    def directory(self, sha256: str) -> Path:
        """Where a version lies once it is installed."""
        return self._root / sha256

    def installed(self) -> list[str]:
        """Manifest digests of what is installed, complete or not."""
        return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir() and entry.name != _STAGING)

    def manifest(self, sha256: str) -> Manifest | None:
        """The manifest of an installed version; None when it is absent or its bytes do not have this digest."""
        return _read_manifest(self.directory(sha256), sha256)

    def verify(self, sha256: str) -> Manifest:
        """The manifest of an installed version, every byte of it checked once per run of the agent.

        Raises:
            TrustError: `digest_mismatch` when a file is missing, cut or changed.
        """
        manifest = self.manifest(sha256)
        if manifest is None:
            raise TrustError("digest_mismatch", f"version {sha256[:12]} has no whole manifest here")
        full = sha256 not in self._verified
        for artifact in manifest.artifacts:
            _check_file(self.directory(sha256) / artifact.name, artifact, full=full)
        self._verified.add(sha256)
        return manifest

    def holds(self, sha256: str) -> bool:
        """Whether a version is installed and whole."""
        try:
            self.verify(sha256)
        except TrustError:
            return False
        return True

    def stage(self, sha256: str, manifest_bytes: bytes) -> "Staging":
        """Begin or resume a version, its manifest already verified."""
        directory = self._root / _STAGING / sha256
        directory.mkdir(exist_ok=True)
        if _read_manifest(directory, sha256) is None:
            write_durably(directory / MANIFEST, manifest_bytes)
        return Staging(self, directory, sha256, decode_manifest(manifest_bytes))

    def resume(self, sha256: str) -> "Staging | None":
        """What an earlier run of the agent staged of a version, or None."""
        directory = self._root / _STAGING / sha256
        manifest = _read_manifest(directory, sha256)
        return None if manifest is None else Staging(self, directory, sha256, manifest)

    def keep_only(self, kept: Iterable[str]) -> None:
        """Delete every version, staged or installed, whose digest is not in `kept`."""
        wanted = set(kept)
        for place in (self._root, self._root / _STAGING):
            for entry in place.iterdir():
                if entry.name != _STAGING and entry.name not in wanted:
                    shutil.rmtree(entry, ignore_errors=True)
                    self._verified.discard(entry.name)

    def find(self, artifact: Artifact, but: Path) -> Path | None:
        """A file with this artifact's digest in an installed version, checked in full."""
        for sha256 in self.installed():
            manifest = self.manifest(sha256)
            for other in manifest.artifacts if manifest is not None else ():
                path = self.directory(sha256) / other.name
                if other.sha256 == artifact.sha256 and path.parent != but and _whole(path, artifact):
                    return path
        return None

    def demand(self, size_bytes: int) -> None:
        """Raises DeviceError `disk_full` unless `size_bytes` fit beside the reserve."""
        free = self._free(self._root)
        if size_bytes and free < size_bytes + self._reserve:
            raise DeviceError("disk_full", f"needs {size_bytes} bytes and {self._reserve} spare, {free} are free")

    def install(self, staged: Path, sha256: str) -> None:
        """Move a finished staging directory to its final name; what lay there was not whole."""
        final = self.directory(sha256)
        if final.exists():
            shutil.rmtree(final)
        os.replace(staged, final)
        sync_directory(self._root)
        self._verified.add(sha256)


class Staging:
    """One version on its way in. Nothing here is visible to workers before `finish`."""

    def __init__(self, store: VersionStore, directory: Path, sha256: str, manifest: Manifest) -> None:
        self._store = store
        self._directory = directory
        self._starts = {artifact.name: offsets(artifact.chunks) for artifact in manifest.artifacts}
        self._bitmaps: dict[str, Bitmap] = {}
        self.sha256 = sha256
        self.manifest = manifest

    def reserve(self) -> int:
        """Link what is here already, check the space and allocate it; returns the bytes still to fetch.

        Raises:
            DeviceError: `disk_full`; nothing but empty files was written.
        """
        for artifact in self.manifest.artifacts:
            self._take_over(artifact)
        self._store.demand(sum(self._unallocated(artifact) for artifact in self.manifest.artifacts))
        try:
            for artifact in self.manifest.artifacts:
                self._allocate(artifact)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise DeviceError(
                "disk_full", f"{error.strerror} while reserving {self.manifest.size_bytes} bytes"
            ) from error
        sync_directory(self._directory)
        return sum(self._missing_bytes(artifact) for artifact in self.manifest.artifacts)

    def missing(self, artifact: Artifact) -> list[int]:
        """Chunks still to fetch. The first call of a run reads back and checks what is ticked off."""
        return self._bitmap(artifact).missing()

    def write(self, artifact: Artifact, index: int, data: bytes) -> None:
        """Check one chunk, write it, tick it off.

        Raises:
            TransferError: `chunk_damaged`; nothing was written.
            DeviceError: `disk_full`.
        """
        bitmap = self._bitmap(artifact)
        verify_chunk(artifact.chunks[index], data)
        try:
            _write_at(self._directory / artifact.name, data, self._starts[artifact.name][index])
            bitmap.set(index)
            # Not synced: a tick without its bytes is found by the check at resume, so only speed depends on it.
            _write_at(self._bitmap_path(artifact), bitmap.to_bytes(), 0)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise DeviceError("disk_full", f"{error.strerror} while writing {artifact.name}") from error

    def finish(self) -> None:
        """Check whole digests, make everything durable, move it into place.

        Raises:
            TrustError: `digest_mismatch`; the file is forgotten, so a later try fetches it again.
        """
        for artifact in self.manifest.artifacts:
            path = self._directory / artifact.name
            try:
                _check_file(path, artifact, full=True)
            except TrustError:
                path.unlink(missing_ok=True)
                self._bitmap_path(artifact).unlink(missing_ok=True)
                raise
            _sync_file(path)
        for artifact in self.manifest.artifacts:
            self._bitmap_path(artifact).unlink(missing_ok=True)
        sync_directory(self._directory)
        self._store.install(self._directory, self.sha256)

    def _take_over(self, artifact: Artifact) -> None:
        path = self._directory / artifact.name
        if not self._bitmap(artifact).missing():
            return
        source = self._store.find(artifact, self._directory)
        if source is None:
            return
        path.unlink(missing_ok=True)
        try:
            os.link(source, path)
        except OSError:  # a file system without hard links, or too many of them
            shutil.copyfile(source, path)
        full = Bitmap(len(artifact.chunks))
        for index in range(full.size):
            full.set(index)
        self._bitmaps[artifact.name] = full

    def _bitmap(self, artifact: Artifact) -> Bitmap:
        known = self._bitmaps.get(artifact.name)
        if known is None:
            known = self._bitmaps[artifact.name] = self._read_back(artifact)
        return known

    def _read_back(self, artifact: Artifact) -> Bitmap:
        """The bitmap on disk, cleared of chunks whose bytes are not what they should be."""
        path, size = self._directory / artifact.name, len(artifact.chunks)
        try:
            bitmap = Bitmap(size, self._bitmap_path(artifact).read_bytes())
            with open(path, "rb") as file:
                for index, start in enumerate(self._starts[artifact.name]):
                    file.seek(start)
                    if chunk_hash(file.read(artifact.chunks[index].size_bytes)) != artifact.chunks[index].hash:
                        bitmap.clear(index)
        except (OSError, WavegateError):
            return Bitmap(size)
        return bitmap

    def _missing_bytes(self, artifact: Artifact) -> int:
        return sum(artifact.chunks[index].size_bytes for index in self._bitmap(artifact).missing())

    def _unallocated(self, artifact: Artifact) -> int:
        path = self._directory / artifact.name
        if not self._bitmap(artifact).missing():
            return 0
        have = path.stat().st_blocks * 512 if path.exists() else 0
        return max(0, artifact.size_bytes - have)

    def _allocate(self, artifact: Artifact) -> None:
        if not self._bitmap(artifact).missing() or artifact.size_bytes == 0:
            (self._directory / artifact.name).touch()
            return
        path = self._directory / artifact.name
        if path.exists() and path.stat().st_nlink > 1:  # linked by a run that was cut: never write into another version
            path.unlink()
        for name, size in (
            (path, artifact.size_bytes),
            (self._bitmap_path(artifact), (len(artifact.chunks) + 7) // 8),
        ):
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(descriptor, 0, size)
                os.ftruncate(descriptor, size)
            finally:
                os.close(descriptor)

    def _bitmap_path(self, artifact: Artifact) -> Path:
        return self._directory / f".{artifact.name}.bitmap"


def _read_manifest(directory: Path, sha256: str) -> Manifest | None:
    try:
        data = (directory / MANIFEST).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    try:
        return decode_manifest(data)
    except TrustError:
        return None


def _check_file(path: Path, artifact: Artifact, *, full: bool) -> None:
    try:
        size = path.stat().st_size
        right = size == artifact.size_bytes and (not full or _digest(path) == artifact.sha256)
    except OSError as error:
        raise TrustError("digest_mismatch", f"{artifact.name}: {error.strerror}") from error
    if not right:
        raise TrustError("digest_mismatch", f"{artifact.name} is not the signed file")


def _whole(path: Path, artifact: Artifact) -> bool:
    try:
        _check_file(path, artifact, full=True)
    except TrustError:
        return False
    return True


def _digest(path: Path) -> str:
    with open(path, "rb", buffering=0) as file:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_READ_BYTES))
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def _write_at(path: Path, data: bytes, offset: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
