"""The release list under attack, and over power cuts. Every signature is real."""

import errno
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.tuf_world import NOW, World, make_manifest, new_signer
from wavegate_agent.adapters.network import image_repository
from wavegate_agent.adapters.network.image_repository import ImageRepository
from wavegate_shared.errors import DeviceError, TransferError, TrustError, WavegateError


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def device(world: World, tmp_path: Path) -> ImageRepository:
    return ImageRepository(tmp_path / "tuf", world.bootstrap, world.fetch)


def refused(error: type[WavegateError], code: str, call: Callable[[], object]) -> None:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.code == code


def test_first_refresh_learns_keys_versions_and_targets(world: World, device: ImageRepository) -> None:
    data = world.publish(make_manifest(1))
    assert not device.known
    device.refresh(NOW)
    assert [key.keyid for key in device.director_keys()] == [world.signers["director"].public_key.keyid]
    assert [key.keyid for key in device.time_keys()] == [world.signers["time"].public_key.keyid]
    assert device.versions()["release/pairs"] == 2
    assert device.target("pairs/1.json").length == len(data)
    assert device.download("pairs/1.json") == data


def test_an_idle_refresh_fetches_one_small_document(world: World, device: ImageRepository) -> None:
    device.refresh(NOW)
    world.fetched.clear()
    device.refresh(NOW + timedelta(hours=1))
    assert [name for name, _ in world.fetched] == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_an_idle_refresh_writes_nothing(device: ImageRepository, tmp_path: Path) -> None:
    device.refresh(NOW)
    before = {path: os.lstat(path).st_mtime_ns for path in tmp_path.rglob("*")}
    device.refresh(NOW + timedelta(hours=1))
    assert {path: os.lstat(path).st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_after_a_restart_keys_are_known_without_network(world: World, device: ImageRepository, tmp_path: Path) -> None:
    world.revoke("pairs", 3)
    device.refresh(NOW)
    world.offline = True
    again = ImageRepository(tmp_path / "tuf", world.bootstrap, world.fetch)
    assert again.known
    assert again.time_keys()[0].keyid == world.signers["time"].public_key.keyid
    assert again.min_seq("pairs") == 3
    refused(TrustError, "metadata_stale", lambda: again.target("pairs/1.json"))


def test_stored_targets_of_a_stranger_are_not_believed(world: World, device: ImageRepository, tmp_path: Path) -> None:
    device.refresh(NOW)
    (tmp_path / "tuf" / "targets.json").write_bytes(World().documents["metadata/1.targets.json"])
    assert not ImageRepository(tmp_path / "tuf", world.bootstrap, world.fetch).known


class TestAttacks:
    def test_replayed_old_metadata(self, world: World, device: ImageRepository) -> None:
        """A broker that kept yesterday's timestamp sends it again."""
        old = world.documents["metadata/timestamp.json"]
        world.publish(make_manifest(1))
        device.refresh(NOW)
        world.documents["metadata/timestamp.json"] = old
        refused(TrustError, "metadata_invalid", lambda: device.refresh(NOW))

    def test_replay_is_refused_after_a_restart_too(self, world: World, device: ImageRepository, tmp_path: Path) -> None:
        old = dict(world.documents)
        world.publish(make_manifest(1))
        device.refresh(NOW)
        world.documents.update(old)
        again = ImageRepository(tmp_path / "tuf", world.bootstrap, world.fetch)
        refused(TrustError, "metadata_invalid", lambda: again.refresh(NOW))

    def test_frozen_metadata(self, world: World, device: ImageRepository) -> None:
        """Nothing new is let through: two days later the timestamp has expired."""
        device.refresh(NOW)
        refused(TrustError, "metadata_stale", lambda: device.refresh(NOW + timedelta(days=2, seconds=1)))

    def test_stolen_timestamp_and_snapshot_keys_cannot_list_a_forged_version(
        self, world: World, device: ImageRepository
    ) -> None:
        device.refresh(NOW)
        world.list_target("release/pairs", "pairs/9.json", b"evil")
        world.signers["thief"] = new_signer()
        world.sign_role("release/pairs", signer="thief")
        world.sign_online()
        device.refresh(NOW)
        refused(TrustError, "metadata_invalid", lambda: device.target("pairs/9.json"))

    def test_nor_replace_the_directors_key(self, world: World, device: ImageRepository) -> None:
        device.refresh(NOW)
        honest = device.director_keys()
        world.signers["thief"] = world.signers["director"] = new_signer()
        world.sign_role("targets", signer="thief")
        world.sign_online()
        refused(TrustError, "metadata_invalid", lambda: device.refresh(NOW))
        assert device.director_keys() == honest

    def test_nor_put_an_older_release_role_back(self, world: World, device: ImageRepository) -> None:
        world.publish(make_manifest(1))
        device.refresh(NOW)
        world.roles["release/pairs"].version = 1
        world.snapshot.meta["release/pairs.json"].version = 1
        world.snapshot.version += 1
        world.sign_online()
        refused(TrustError, "metadata_invalid", lambda: device.refresh(NOW))

    def test_a_release_key_cannot_sign_another_models_version(self, world: World, device: ImageRepository) -> None:
        world.list_target("release/pairs", "faces/1.json", b"evil")
        world.sign_role("release/pairs")
        world.sign_online()
        device.refresh(NOW)
        refused(TrustError, "version_not_listed", lambda: device.target("faces/1.json"))

    def test_a_root_signed_by_one_of_three(self, world: World, device: ImageRepository) -> None:
        world.publish_root(signers=("root-1",))
        refused(TrustError, "metadata_invalid", lambda: device.refresh(NOW))

    def test_a_foreign_root_as_bootstrap_of_nothing(self, world: World, tmp_path: Path) -> None:
        refused(TrustError, "metadata_invalid", lambda: ImageRepository(tmp_path, b"{}", world.fetch))

    def test_an_endless_document(self, world: World, device: ImageRepository) -> None:
        world.documents["metadata/timestamp.json"] += b" " * 100_000  # valid, but for its length
        refused(TrustError, "metadata_invalid", lambda: device.refresh(NOW))

    @pytest.mark.parametrize("junk", [b"", b"null", b"[" * 9000, b'{"signed":{}}', b"\xff\xfe"])
    def test_junk(self, world: World, device: ImageRepository, junk: bytes) -> None:
        world.documents["metadata/timestamp.json"] = junk
        refused(TrustError, "metadata_invalid", lambda: device.refresh(NOW))

    def test_other_bytes_under_a_listed_name(self, world: World, device: ImageRepository) -> None:
        data = world.publish(make_manifest(1))
        device.refresh(NOW)
        name = next(name for name in world.documents if name.startswith("targets/pairs/"))
        world.documents[name] = data[:-1] + b"]"
        refused(TrustError, "digest_mismatch", lambda: device.download("pairs/1.json"))


def test_a_new_root_and_timestamp_key_are_followed(world: World, device: ImageRepository, tmp_path: Path) -> None:
    """Three rotations while the device slept."""
    device.refresh(NOW)
    for _ in range(3):
        world.signers["timestamp"] = new_signer()
        world.publish_root()
    world.publish(make_manifest(1))
    device.refresh(NOW)
    assert device.versions()["root"] == 4
    assert os.readlink(tmp_path / "tuf" / "root.json") == os.path.join("root_history", "4.root.json")
    world.offline = True
    assert ImageRepository(tmp_path / "tuf", world.bootstrap, world.fetch).known


def test_reference_time_decides_about_expiry(world: World, device: ImageRepository) -> None:
    """Trusted time counts, not the system's clock: years away in both directions (pins a private attribute of tuf)."""
    past = World(now=datetime(2001, 1, 1, tzinfo=NOW.tzinfo))
    device._fetch, device._bootstrap = past.fetch, past.bootstrap
    device.refresh(past.now)
    assert device.fresh(past.now)
    assert not device.fresh(past.now + timedelta(days=3))
    refused(TrustError, "metadata_stale", lambda: device.refresh(past.now + timedelta(days=3)))


def test_no_connection_is_a_reason_to_try_again(world: World, device: ImageRepository) -> None:
    world.offline = True
    refused(TransferError, "not_connected", lambda: device.refresh(NOW))


def test_a_server_without_metadata(world: World, device: ImageRepository) -> None:
    world.documents.clear()
    refused(TransferError, "document_missing", lambda: device.refresh(NOW))


def test_a_failed_refresh_leaves_the_listing_as_it_was(world: World, device: ImageRepository) -> None:
    data = world.publish(make_manifest(1))
    device.refresh(NOW)
    world.documents["metadata/timestamp.json"] = b"null"
    refused(TrustError, "metadata_invalid", lambda: device.refresh(NOW))
    assert device.download("pairs/1.json") == data


def test_a_full_disk(world: World, device: ImageRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(image_repository, "write_durably", full)
    refused(DeviceError, "disk_full", lambda: device.refresh(NOW))


def test_metadata_are_synced_before_they_are_renamed(
    world: World, device: ImageRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-tuf alone never syncs, and forgets what it knew in a power cut: then old metadata pass."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append("fsync")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        steps.append(target.name)
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    device.refresh(NOW)
    assert steps == [
        step for name in ("timestamp", "snapshot", "targets") for step in ("fsync", f"{name}.json", "fsync")
    ]


def test_a_torn_store_is_healed_by_the_next_refresh(world: World, device: ImageRepository, tmp_path: Path) -> None:
    world.publish(make_manifest(1))
    device.refresh(NOW)
    (tmp_path / "tuf" / "snapshot.json").write_bytes(b"")
    (tmp_path / "tuf" / "root.json").unlink()
    again = ImageRepository(tmp_path / "tuf", world.bootstrap, world.fetch)
    again.refresh(NOW)
    assert again.versions() == device.versions()
