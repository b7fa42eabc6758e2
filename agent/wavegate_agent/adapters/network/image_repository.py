"""The image repository as this device sees it: TUF metadata, kept durably, fetched through any carrier.

`tuf.ngclient.Updater` does the verifying. It is covered where it was found wanting:
- it never fsyncs: after a power cut its files are empty, which it takes for "nothing known yet" and then accepts replayed old
  metadata. `_DurableUpdater` writes, fsyncs, renames, fsyncs the directory; unchanged files are not written again;
- `root.json` is gone for a moment while it is replaced: the bootstrap root is passed always, the link is swapped atomically;
- its clock is the system's: the reference time is set from trusted time;
- `download_target` writes twice and goes through /tmp: `download` here fetches into memory and checks length and digest.

Document names are those of the server's repository: `metadata/<file>`, and `targets/<dir>/<sha256>.<file>`.
Not here: what the carrier is (MQTT request/response), and whether a listed version suits this device (`core/verify.py`).
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import wavegate_agent.adapters.network.tuf_light  # noqa: F401  # isort: skip  # first: keeps the library's HTTP stack out
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from wavegate_agent.adapters.disk.durable import sync_directory, write_durably
from wavegate_agent.core.verify import TargetInfo
from wavegate_shared.dsse import Key, key_from_dict
from wavegate_shared.errors import DeviceError, TransferError, TrustError

__all__ = ["MAX_MANIFEST_BYTES", "Fetch", "ImageRepository"]

Fetch = Callable[[str, int], bytes]
"""(document name, most bytes wanted) -> bytes. Raises TransferError `document_missing` when the server says there is none,
`not_connected` or `transfer_stalled` when no answer came."""

MAX_MANIFEST_BYTES = 8 << 20
"""A manifest lists about 60 bytes a chunk: enough for a model of 15 GB."""
_DIRECTOR_TARGET = "system/director.json"
_METADATA_URL = "metadata/"


@dataclass(frozen=True, slots=True)
class _System:
    """What targets.json says through `system/director.json`."""

    director: list[Key] = field(default_factory=list)
    time: list[Key] = field(default_factory=list)
    min_seq: dict[str, int] = field(default_factory=dict)


class ImageRepository:
    """Which versions exist and are valid. One instance a process, one thread at a time.

    `fetch` is called from `refresh`, `target` and `download` on the caller's thread and blocks it: never call them on the
    thread that delivers the answers.
    """

    def __init__(self, directory: Path, bootstrap: bytes, fetch: Fetch) -> None:
        """Load what an earlier run stored (no network): keys are known again after a restart.

        Args:
            directory: where metadata are kept; made when missing.
            bootstrap: the root the device was enrolled with; newer ones follow from it.
            fetch: how a document gets here.

        Raises:
            TrustError: `metadata_invalid` when the bootstrap root does not verify.
        """
        self._directory = directory
        self._bootstrap = bootstrap
        self._fetch = fetch
        self._updater: _DurableUpdater | None = None
        with _as_wavegate():
            _make_directory(directory / "root_history")
            stored = self._new_updater().stored_targets()
        self._system = _system(stored) if stored is not None else _System()

    def refresh(self, now: datetime) -> None:
        """Fetch what is newer and verify it all against `now` (trusted time). 469 bytes when nothing changed.

        A failure leaves keys and listings as they were; what verified before it failed is kept (TUF's own rule).

        Raises:
            TrustError: `metadata_stale` (expired: frozen, or a wrong clock), `metadata_invalid` (any other failure).
            TransferError: no answer, or the server does not have a document it must have.
            DeviceError: `disk_full`.
        """
        with _as_wavegate():
            updater = self._new_updater()
            updater.at(now)
            updater.refresh()
            system = _system(updater.targets)
        self._updater, self._system = updater, system

    @property
    def known(self) -> bool:
        """Whether keys are known, from the store or a refresh; false only before the first refresh ever."""
        return bool(self._system.director)

    def fresh(self, now: datetime) -> bool:
        """Whether a refresh succeeded in this process and nothing of it has expired since."""
        return self._updater is not None and not self._updater.expired(now)

    def director_keys(self) -> list[Key]:
        """Keys whose signature makes an assignment; empty before the first refresh ever."""
        return list(self._system.director)

    def time_keys(self) -> list[Key]:
        """Keys whose signature makes a time answer; known after a restart even when all metadata have expired."""
        return list(self._system.time)

    def min_seq(self, model: str) -> int:
        """Lowest release number of the model that is not revoked; 0 when nothing was."""
        return self._system.min_seq.get(model, 0)

    def versions(self) -> dict[str, int]:
        """Role -> metadata version, as of the last refresh in this process; empty before it."""
        return {} if self._updater is None else self._updater.versions()

    def target(self, path: str) -> TargetInfo:
        """What the release list says of a path; fetches the delegated role when it changed.

        Raises:
            TrustError: `version_not_listed`, `metadata_stale` (no refresh in this process yet), `metadata_invalid`.
            TransferError: no answer.
        """
        target = self._target(path)
        return TargetInfo(target.length, target.hashes["sha256"])

    def download(self, path: str) -> bytes:
        """The target's bytes, fetched and checked for length and digest.

        Raises:
            TrustError: `digest_mismatch`, and whatever `target` raises.
            TransferError: no answer.
        """
        listed = self.target(path)
        if listed.length > MAX_MANIFEST_BYTES:
            raise TrustError("manifest_invalid", f"{path} has {listed.length} bytes, at most {MAX_MANIFEST_BYTES}")
        directory, slash, name = path.rpartition("/")
        data = self._fetch(f"targets/{directory}{slash}{listed.sha256}.{name}", listed.length)
        if len(data) != listed.length or hashlib.sha256(data).hexdigest() != listed.sha256:
            raise TrustError("digest_mismatch", f"{path}: {len(data)} bytes that are not the signed ones")
        return data

    def _new_updater(self) -> "_DurableUpdater":
        return _DurableUpdater(self._directory, _Fetcher(self._fetch), self._bootstrap)

    def _target(self, path: str) -> TargetFile:
        if self._updater is None:
            raise TrustError("metadata_stale", "the release list was not refreshed since the agent started")
        with _as_wavegate():
            target = self._updater.get_targetinfo(path)
        if target is None or "sha256" not in target.hashes:
            raise TrustError("version_not_listed", f"{path} is not in the signed release list")
        return target


class _Fetcher(FetcherInterface):
    """Hands each document request to the carrier, with the most bytes that may come back."""

    def __init__(self, fetch: Fetch) -> None:
        self._get = fetch

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter((self.download_bytes(url, UpdaterConfig().targets_max_length),))

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The document; the library's own way would go through a temporary file."""
        try:
            data = self._get(url, max_length)
        except TransferError as error:
            if error.code == "document_missing":
                raise DownloadHTTPError(f"{url}: {error}", 404) from error
            raise
        if len(data) > max_length:
            raise DownloadLengthMismatchError(f"{url}: {len(data)} bytes, at most {max_length}")
        return data


class _DurableUpdater(Updater):
    """The library's updater with a store that survives power cuts. One refresh each, as the library wants it."""

    def __init__(self, directory: Path, fetcher: FetcherInterface, bootstrap: bytes) -> None:
        super().__init__(str(directory), _METADATA_URL, fetcher=fetcher, bootstrap=bootstrap)

    def at(self, now: datetime) -> None:
        """Judge expiry by `now` instead of the system clock."""
        self._trusted_set.reference_time = now  # private: `test_reference_time_decides_about_expiry` pins it

    @property
    def targets(self) -> Targets:
        """The top-level targets after a refresh."""
        return self._trusted_set.targets

    def versions(self) -> dict[str, int]:
        """Role -> version; delegated roles as the verified snapshot lists them."""
        trusted = self._trusted_set
        roles = {name.removesuffix(".json"): meta.version for name, meta in trusted.snapshot.meta.items()}
        return {
            **roles,
            "root": trusted.root.version,
            "timestamp": trusted.timestamp.version,
            "snapshot": trusted.snapshot.version,
        }

    def expired(self, now: datetime) -> bool:
        """Whether any top-level metadata have ended by `now`."""
        trusted = self._trusted_set
        return any(
            role.is_expired(now) for role in (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
        )

    def stored_targets(self) -> Targets | None:
        """Targets as stored, signed by the newest stored root; None when there are none. Expiry does not count.

        Only for keys after a restart. A device whose clock is lost needs the time key to learn the time, and what is decided
        with these keys is decided again after a refresh.
        """
        root: Root = self._trusted_set.root
        with suppress(OSError, RepositoryError):
            while True:
                data = Path(self._dir, "root_history", f"{root.version + 1}.root.json").read_bytes()
                root = self._trusted_set.update_root(data)
        try:
            metadata = Metadata[Targets].from_bytes(self._load_local_metadata(Targets.type))
            root.verify_delegate(Targets.type, metadata.signed_bytes, metadata.signatures)
        except (OSError, RepositoryError):
            return None
        return metadata.signed if isinstance(metadata.signed, Targets) else None

    def _persist_file(self, filename: str, data: bytes) -> None:
        place = Path(filename)
        with suppress(OSError):
            if place.read_bytes() == data:
                return
        write_durably(place, data)

    def _update_root_symlink(self) -> None:
        link = Path(self._dir, "root.json")
        current = os.path.join("root_history", f"{self._trusted_set.root.version}.root.json")
        if link.is_symlink() and os.readlink(link) == current:
            return
        temporary = Path(self._dir, "root.json.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(current)
        temporary.replace(link)
        sync_directory(link.parent)


@contextmanager
def _as_wavegate() -> Iterator[None]:
    """The library's errors as ours; errors of the carrier pass as they are."""
    try:
        yield
    except ExpiredMetadataError as error:
        raise TrustError("metadata_stale", str(error)) from error
    except RepositoryError as error:
        raise TrustError("metadata_invalid", f"{type(error).__name__}: {error}") from error
    except DownloadHTTPError as error:
        raise TransferError("document_missing", str(error)) from error
    except DownloadError as error:
        raise TrustError("metadata_invalid", str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DeviceError("disk_full", f"no room for update metadata: {error}") from error
        raise


def _system(targets: Targets) -> _System:
    listed = targets.targets.get(_DIRECTOR_TARGET)
    custom = listed.custom if listed is not None else None
    if not isinstance(custom, Mapping):
        raise TrustError("metadata_invalid", f"{_DIRECTOR_TARGET} is not in the signed metadata")
    try:
        floors = {str(model): int(seq) for model, seq in custom["min_seq"].items()}
        return _System(_keys(custom["director"]), _keys(custom["time"]), floors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrustError("metadata_invalid", f"{_DIRECTOR_TARGET} does not fit its schema: {error!r}") from error


def _keys(entries: Mapping[str, Any]) -> list[Key]:
    return [key_from_dict(keyid, dict(key)) for keyid, key in entries.items()]


def _make_directory(path: Path) -> None:
    if path.is_dir():
        return
    path.mkdir(parents=True, mode=0o700)
    sync_directory(path.parent)
