"""One commit: all of it or nothing, wherever it is cut."""

from pathlib import Path

import pytest

from tests.support.trust import NOW, make_repository, stock_updater
from tests.support.tuf_world import make_manifest
from wavegate_server.adapters.files.durable import write_durable
from wavegate_server.adapters.trust import repository_files
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.repository_change import EXPIRY, Change, expiry_of
from wavegate_shared.manifest import encode_manifest

V1 = encode_manifest(make_manifest(1))
V2 = encode_manifest(make_manifest(2))


@pytest.fixture
def repository(tmp_path: Path) -> ImageRepository:
    return make_repository(tmp_path / "server")


def test_expiry_counts_whole_seconds_by_kind_of_role() -> None:
    at = NOW.replace(microsecond=7)
    assert expiry_of("release/pairs", at) == NOW + EXPIRY["release"]
    assert expiry_of("timestamp", at) == NOW + EXPIRY["timestamp"]


def test_an_edit_that_is_not_committed_leaves_nothing(repository: ImageRepository) -> None:
    with repository.store.changing():
        Change(repository.store, repository.keys, NOW).edit("targets")
    assert repository.versions()["targets"] == 1


def test_a_commit_cut_short_after_any_write_leaves_a_valid_repository(
    repository: ImageRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write in turn is the last one; then a device refreshes, then the publication is repeated."""
    repository.publish("pairs", 1, V1, NOW)
    left = 0

    def write(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise OSError("power cut")
        left -= 1
        write_durable(path, data)

    monkeypatch.setattr(repository_files, "write_durable", write)
    for cut in range(10):
        left = cut
        try:
            repository.publish("pairs", 2, V2, NOW)
        except OSError:
            updater = stock_updater(repository, tmp_path / f"device-{cut}")
            assert updater.get_targetinfo("pairs/1.json") is not None
            continue
        assert cut == 4  # manifest, release role, snapshot, timestamp
        break
    assert stock_updater(repository, tmp_path / "device").get_targetinfo("pairs/2.json") is not None
