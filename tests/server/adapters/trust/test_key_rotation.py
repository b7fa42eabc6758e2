"""Keys are replaced while devices sleep; a stock client follows from the first root."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.trust import NOW, make_repository, stock_updater
from tests.support.tuf_world import make_manifest
from wavegate_server.adapters.files.durable import write_durable
from wavegate_server.adapters.trust import repository_files
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.key_rotation import renew_root, rotate
from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import encode_manifest

ROLES = ["root-1", "root-2", "root-3", "targets", "snapshot", "timestamp", "release", "director", "time"]


@pytest.fixture
def repository(tmp_path: Path) -> ImageRepository:
    fresh = make_repository(tmp_path / "server")
    fresh.publish("pairs", 1, encode_manifest(make_manifest(1)), NOW)
    return fresh


def follows(repository: ImageRepository, directory: Path) -> bool:
    updater = stock_updater(repository, directory)
    return updater.get_targetinfo("pairs/1.json") is not None


@pytest.mark.parametrize("role", ROLES)
def test_a_sleeping_device_follows(repository: ImageRepository, tmp_path: Path, role: str) -> None:
    old = repository.keys.public(role)
    new = rotate(repository, role, NOW)
    assert repository.keys.public(role).keyid == new.keyid != old.keyid
    assert follows(repository, tmp_path / "device")
    trusted = repository.store.root().signed.keys
    assert old.keyid not in trusted, "root does not name the old key any more"


def test_all_of_them_one_after_another(repository: ImageRepository, tmp_path: Path) -> None:
    for role in ROLES:
        rotate(repository, role, NOW)
    repository.publish("pairs", 2, encode_manifest(make_manifest(2)), NOW)
    assert follows(repository, tmp_path / "device")
    assert repository.store.root_version() == 1 + 3 + 3 * 2


def test_directors_new_key_is_what_devices_read(repository: ImageRepository, tmp_path: Path) -> None:
    new = rotate(repository, "director", NOW)
    target = stock_updater(repository, tmp_path / "device").get_targetinfo("system/director.json")
    assert target is not None
    assert list(target.custom["director"]) == [new.keyid]


def test_a_root_key_may_be_lost_when_the_others_are_here(repository: ImageRepository, tmp_path: Path) -> None:
    repository.keys.move("root-1", tmp_path / "safe").unlink()
    rotate(repository, "root-1", NOW)
    assert follows(repository, tmp_path / "device")


def test_two_root_keys_are_needed(repository: ImageRepository, tmp_path: Path) -> None:
    for role in ("root-1", "root-2"):
        repository.keys.move(role, tmp_path / "safe").unlink()
    before = repository.keys.status()
    with pytest.raises(UsageError, match="2 of the root keys are needed, 1 are on this machine"):
        rotate(repository, "timestamp", NOW)
    assert repository.keys.status() == before


def test_a_release_key_is_not_replaced_without_the_targets_key(repository: ImageRepository, tmp_path: Path) -> None:
    repository.keys.move("targets", tmp_path / "safe").unlink()
    before = repository.keys.status()
    with pytest.raises(UsageError, match="key_missing"):
        rotate(repository, "release", NOW)
    assert repository.keys.status() == before


@pytest.mark.parametrize("role", ["root-2", "targets", "timestamp", "release", "director"])
def test_cut_short_after_any_write_it_is_valid_and_can_be_repeated(
    repository: ImageRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    left = 0

    def write(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise OSError("power cut")
        left -= 1
        write_durable(path, data)

    monkeypatch.setattr(repository_files, "write_durable", write)
    for cut in range(12):
        left = cut
        try:
            rotate(repository, role, NOW)
        except OSError:
            assert follows(repository, tmp_path / f"device-{cut}")
            left = 99
            assert not repository.resign_online(NOW)
            repository.resign_online(NOW + timedelta(hours=7))  # the server goes on signing with what it has
            assert follows(repository, tmp_path / f"later-{cut}")
            continue
        break
    else:
        pytest.fail("never finished")
    assert follows(repository, tmp_path / "device")


def test_what_a_crash_left_between_keys_and_metadata_is_completed(repository: ImageRepository, tmp_path: Path) -> None:
    """The key store has the new keys, the signed metadata still name the old ones."""
    keys: KeyStore = repository.keys
    for role in ("director", "release"):
        keys.pending(role)
        keys.promote(role)
    assert repository.sync_keys(NOW)
    assert not repository.sync_keys(NOW)
    target = stock_updater(repository, tmp_path / "device").get_targetinfo("system/director.json")
    assert target is not None
    assert list(target.custom["director"]) == [keys.public("director").keyid]
    repository.publish("pairs", 2, encode_manifest(make_manifest(2)), NOW)
    assert follows(repository, tmp_path / "other")


def test_root_lives_a_year_longer(repository: ImageRepository, tmp_path: Path) -> None:
    later = NOW + timedelta(days=300)
    assert renew_root(repository, later) == 2
    assert repository.expiries()["root"] == later + timedelta(days=365)
    assert follows(repository, tmp_path / "device")
