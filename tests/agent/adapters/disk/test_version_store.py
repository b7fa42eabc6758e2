"""Versions on disk: complete or absent, resumed without fetching twice, and a full disk changes nothing."""

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tuf_world import make_manifest
from wavegate_agent.adapters.disk.version_store import Staging, VersionStore
from wavegate_shared.chunks import Chunk, chunk_hash, cut
from wavegate_shared.errors import DeviceError, TransferError, TrustError
from wavegate_shared.manifest import Artifact, Manifest, encode_manifest

CHUNK = 512
VOCAB = b"vocabulary " * 200


def artifact(name: str, role: str, data: bytes) -> Artifact:
    chunks = [Chunk(chunk_hash(piece), len(piece)) for piece in cut([data], CHUNK)]
    return Artifact(name=name, role=role, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), chunks=chunks)


class Release:
    """A version with its bytes."""

    def __init__(self, version: int, size: int = 5000) -> None:
        self.files = {
            "model.onnx": hashlib.sha256(b"%d" % version).digest() * (size // 32),
            "golden.npz": b"g%d" % version,
            "vocab.txt": VOCAB,
        }
        roles = {"model.onnx": "model", "golden.npz": "golden", "vocab.txt": "vocab"}
        self.manifest: Manifest = make_manifest(
            version, artifacts=[artifact(name, roles[name], data) for name, data in self.files.items()]
        )
        self.bytes = encode_manifest(self.manifest)
        self.sha256 = hashlib.sha256(self.bytes).hexdigest()

    def stage(self, store: VersionStore) -> Staging:
        return store.stage(self.sha256, self.bytes)

    def write(self, staging: Staging, most: int = 10**9) -> int:
        """Write missing chunks, at most so many; returns how many."""
        written = 0
        for part in self.manifest.artifacts:
            for index in staging.missing(part):
                if written == most:
                    return written
                staging.write(part, index, self.files[part.name][index * CHUNK : (index + 1) * CHUNK])
                written += 1
        return written

    def install(self, store: VersionStore) -> None:
        staging = self.stage(store)
        staging.reserve()
        self.write(staging)
        staging.finish()


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "models", reserve_bytes=0)


def again(store: VersionStore) -> VersionStore:
    """The store as another run of the agent sees it."""
    return VersionStore(store.directory("x").parent, reserve_bytes=0)


def test_a_version_appears_whole(store: VersionStore) -> None:
    release = Release(1)
    staging = release.stage(store)
    assert staging.reserve() == release.manifest.size_bytes
    release.write(staging)
    assert not store.holds(release.sha256)
    staging.finish()
    assert store.verify(release.sha256) == release.manifest
    assert {p.name for p in store.directory(release.sha256).iterdir()} == {"manifest.json", *release.files}
    for name, data in release.files.items():
        assert (store.directory(release.sha256) / name).read_bytes() == data


def test_a_killed_fetch_goes_on_where_it_was(store: VersionStore) -> None:
    release = Release(1)
    staging = release.stage(store)
    staging.reserve()
    total = sum(len(a.chunks) for a in release.manifest.artifacts)
    assert release.write(staging, 4) == 4
    resumed = again(store).resume(release.sha256)
    assert resumed is not None
    resumed.reserve()
    assert release.write(resumed) == total - 4
    resumed.finish()


def test_a_power_cut_that_lost_bytes_costs_only_those(store: VersionStore) -> None:
    """The bitmap got to disk, some of the data did not: those chunks are fetched again."""
    release = Release(1)
    staging = release.stage(store)
    staging.reserve()
    release.write(staging)
    path = store.directory(".staging") / release.sha256 / "model.onnx"
    data = bytearray(path.read_bytes())
    data[CHUNK : 2 * CHUNK] = bytes(CHUNK)
    path.write_bytes(data)
    resumed = again(store).resume(release.sha256)
    assert resumed is not None
    assert resumed.missing(release.manifest.artifact("model")) == [1]


def test_a_damaged_chunk_is_not_written(store: VersionStore) -> None:
    release = Release(1)
    staging = release.stage(store)
    staging.reserve()
    model = release.manifest.artifact("model")
    with pytest.raises(TransferError, match="chunk_damaged"):
        staging.write(model, 0, b"?" * CHUNK)
    assert 0 in staging.missing(model)


def test_a_whole_file_that_is_not_the_signed_one_is_refused(store: VersionStore) -> None:
    release = Release(1)
    staging = release.stage(store)
    staging.reserve()
    release.write(staging)
    path = store.directory(".staging") / release.sha256 / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(TrustError, match="digest_mismatch"):
        staging.finish()
    assert not store.holds(release.sha256)


def test_what_another_version_has_is_linked_not_fetched(store: VersionStore) -> None:
    first, second = Release(1), Release(2)
    first.install(store)
    staging = second.stage(store)
    assert staging.reserve() == second.manifest.size_bytes - len(VOCAB)
    second.write(staging)
    staging.finish()
    paths = [store.directory(r.sha256) / "vocab.txt" for r in (first, second)]
    assert paths[0].stat().st_ino == paths[1].stat().st_ino
    store.keep_only([second.sha256])
    assert store.holds(second.sha256)


def test_a_rotten_file_of_another_version_is_not_taken_over(store: VersionStore) -> None:
    first, second = Release(1), Release(2)
    first.install(store)
    (store.directory(first.sha256) / "vocab.txt").write_bytes(VOCAB[:-1] + b"?")
    staging = second.stage(store)
    assert staging.reserve() == second.manifest.size_bytes


def test_a_link_left_by_a_cut_is_never_written_through(store: VersionStore) -> None:
    first, second = Release(1), Release(2)
    first.install(store)
    second.stage(store).reserve()
    original = store.directory(first.sha256) / "vocab.txt"
    original.write_bytes(b"!" * len(VOCAB))
    later = again(store).resume(second.sha256)
    assert later is not None
    later.reserve()
    second.write(later)
    assert original.read_bytes() == b"!" * len(VOCAB)


@pytest.mark.parametrize("name", ["model.onnx", "vocab.txt", "manifest.json"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_damage_on_disk_is_noticed_at_boot(store: VersionStore, name: str, how: str) -> None:
    release = Release(1)
    release.install(store)
    path = store.directory(release.sha256) / name
    data = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(data[:-1] + b"?")
    elif how == "cut":
        path.write_bytes(data[:-1])
    assert not again(store).holds(release.sha256)


def test_a_damaged_version_is_replaced_by_a_good_copy(store: VersionStore) -> None:
    release = Release(1)
    release.install(store)
    (store.directory(release.sha256) / "golden.npz").unlink()
    fresh = again(store)
    release.install(fresh)
    assert fresh.holds(release.sha256)


def test_only_what_is_kept_stays(store: VersionStore) -> None:
    releases = [Release(n) for n in (1, 2, 3)]
    for release in releases:
        release.install(store)
    Release(4).stage(store)
    store.keep_only([releases[0].sha256, releases[2].sha256])
    assert store.installed() == sorted(r.sha256 for r in (releases[0], releases[2]))
    assert again(store).resume(Release(4).sha256) is None


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "models", reserve_bytes=1000, free=lambda _: 6000)
    staging = Release(1).stage(store)
    with pytest.raises(DeviceError, match="disk_full"):
        staging.reserve()


def test_a_disk_that_fills_up_while_reserving(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DeviceError, match="disk_full"):
        Release(1).stage(store).reserve()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_really_full_disk(small_disk: Path) -> None:
    """A version larger than the disk is refused, the one that is there stays whole, and discarding frees the space."""
    store = VersionStore(small_disk / "models", reserve_bytes=0, free=lambda _: 10**12)
    good, large = Release(1, 100_000), Release(2, 2_000_000)
    good.install(store)
    staging = large.stage(store)
    with pytest.raises(DeviceError, match="disk_full"):
        staging.reserve()
    store.keep_only([good.sha256])
    assert again(store).holds(good.sha256)
    Release(3, 100_000).install(store)
