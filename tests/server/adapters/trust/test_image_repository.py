"""The repository through the library's own client, which is unchanged here."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import ExpiredMetadataError

from tests.support.trust import NOW, make_repository, stock_updater
from tests.support.tuf_world import make_manifest
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_shared.errors import TrustError, UsageError
from wavegate_shared.manifest import encode_manifest

V1 = encode_manifest(make_manifest(1))
V2 = encode_manifest(make_manifest(2))
LATER = NOW + timedelta(days=1)


@pytest.fixture
def repository(tmp_path: Path) -> ImageRepository:
    return make_repository(tmp_path / "server")


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_fresh_repository_is_valid_and_empty(repository: ImageRepository, tmp_path: Path) -> None:
    updater = stock_updater(repository, tmp_path / "device")
    updater.refresh()
    assert updater.get_targetinfo("pairs/1.json") is None


def test_root_needs_two_of_three(repository: ImageRepository) -> None:
    root = repository.store.root().signed
    assert root.roles["root"].threshold == 2
    assert len(root.roles["root"].keyids) == 3
    assert root.consistent_snapshot


def test_init_twice_changes_nothing(repository: ImageRepository, tmp_path: Path) -> None:
    before = files(tmp_path)
    repository.init(LATER)
    assert files(tmp_path) == before


def test_init_completes_a_first_start_that_was_cut_short(repository: ImageRepository, tmp_path: Path) -> None:
    (tmp_path / "server" / "tuf" / "metadata" / "timestamp.json").unlink()
    repository.init(NOW)
    stock_updater(repository, tmp_path / "device").refresh()


def test_a_published_version_is_downloaded_by_a_stock_client(repository: ImageRepository, tmp_path: Path) -> None:
    repository.publish("pairs", 1, V1, NOW)
    updater = stock_updater(repository, tmp_path / "device")
    target = updater.get_targetinfo("pairs/1.json")
    assert target is not None
    assert Path(updater.download_target(target)).read_bytes() == V1
    assert repository.meta_min("pairs") == {"root": 1, "targets": 2, "release/pairs": 2}


def test_publishing_the_same_bytes_again_changes_nothing(repository: ImageRepository, tmp_path: Path) -> None:
    repository.publish("pairs", 1, V1, NOW)
    before = files(tmp_path)
    repository.publish("pairs", 1, V1, LATER)
    assert files(tmp_path) == before


def test_other_bytes_under_a_published_number(repository: ImageRepository) -> None:
    repository.publish("pairs", 1, V1, NOW)
    changed = encode_manifest(make_manifest(1, description="another"))
    with pytest.raises(UsageError, match="conflict"):
        repository.publish("pairs", 1, changed, NOW)


def test_what_is_not_this_versions_manifest(repository: ImageRepository) -> None:
    with pytest.raises(TrustError, match="manifest_invalid"):
        repository.publish("pairs", 2, V1, NOW)
    with pytest.raises(TrustError, match="manifest_invalid"):
        repository.publish("pairs", 1, b"{}", NOW)


@pytest.mark.parametrize("name", ["system", "bench", "Pairs", "a/b", "", "*", "x" * 64])
def test_names_that_cannot_be_a_models(repository: ImageRepository, name: str) -> None:
    with pytest.raises(UsageError, match="invalid"):
        repository.ensure_model(name, NOW)


def test_another_models_metadata_stay_untouched(repository: ImageRepository) -> None:
    repository.publish("pairs", 1, V1, NOW)
    repository.ensure_model("faces", NOW)
    versions = repository.versions()
    repository.publish("pairs", 2, V2, NOW)
    assert {role for role, version in repository.versions().items() if version != versions[role]} == {
        "release/pairs",
        "snapshot",
        "timestamp",
    }


class TestRevoke:
    def test_the_version_is_gone_and_the_others_stay(self, repository: ImageRepository, tmp_path: Path) -> None:
        repository.publish("pairs", 1, V1, NOW)
        repository.publish("pairs", 2, V2, NOW)
        repository.revoke("pairs", 2, NOW)
        updater = stock_updater(repository, tmp_path / "device")
        assert updater.get_targetinfo("pairs/2.json") is None
        assert updater.get_targetinfo("pairs/1.json") is not None
        assert repository.min_seq("pairs") == 0

    def test_min_seq_takes_all_below_and_never_falls(self, repository: ImageRepository, tmp_path: Path) -> None:
        repository.publish("pairs", 1, V1, NOW)
        repository.publish("pairs", 2, V2, NOW)
        repository.revoke("pairs", 1, NOW, min_seq=2)
        repository.revoke("pairs", 1, NOW, min_seq=1)
        assert repository.min_seq("pairs") == 2
        updater = stock_updater(repository, tmp_path / "device")
        assert updater.get_targetinfo("pairs/1.json") is None
        assert updater.get_targetinfo("pairs/2.json") is not None

    def test_a_revoked_number_is_not_published_again(self, repository: ImageRepository) -> None:
        repository.publish("pairs", 2, V2, NOW)
        repository.revoke("pairs", 2, NOW, min_seq=3)
        with pytest.raises(UsageError, match="below 3 is revoked"):
            repository.publish("pairs", 2, V2, NOW)

    def test_twice_is_once(self, repository: ImageRepository, tmp_path: Path) -> None:
        repository.publish("pairs", 1, V1, NOW)
        repository.revoke("pairs", 1, NOW, min_seq=2)
        before = files(tmp_path)
        repository.revoke("pairs", 1, LATER, min_seq=2)
        assert files(tmp_path) == before

    def test_an_unknown_model(self, repository: ImageRepository) -> None:
        with pytest.raises(UsageError, match="not_found"):
            repository.revoke("faces", 1, NOW)


class TestBench:
    candidate = encode_manifest(make_manifest(7, bench_only=True))

    def test_a_candidate_has_a_role_and_key_of_its_own(self, repository: ImageRepository, tmp_path: Path) -> None:
        path = repository.publish_bench("arm", "c7", self.candidate, NOW)
        assert path == "bench/arm/c7.json"
        assert stock_updater(repository, tmp_path / "device").get_targetinfo(path) is not None
        assert repository.keys.public("bench/arm").keyid != repository.keys.public("release").keyid

    def test_a_candidate_is_never_released(self, repository: ImageRepository) -> None:
        with pytest.raises(UsageError, match="benching only"):
            repository.publish("pairs", 7, self.candidate, NOW)

    def test_a_release_is_never_a_candidate(self, repository: ImageRepository) -> None:
        with pytest.raises(TrustError, match="bench_only"):
            repository.publish_bench("arm", "c1", V1, NOW)


class TestResign:
    def test_not_due_does_nothing(self, repository: ImageRepository, tmp_path: Path) -> None:
        before = files(tmp_path)
        assert not repository.resign_online(NOW + timedelta(hours=5, minutes=59))
        assert files(tmp_path) == before

    def test_timestamp_six_hourly_snapshot_half_way(self, repository: ImageRepository) -> None:
        assert repository.resign_online(NOW + timedelta(hours=7))
        assert (repository.versions()["timestamp"], repository.versions()["snapshot"]) == (2, 1)
        assert repository.resign_online(NOW + timedelta(days=4))
        assert (repository.versions()["timestamp"], repository.versions()["snapshot"]) == (3, 2)

    def test_a_repository_that_is_signed_anew_stays_valid_for_weeks(
        self, repository: ImageRepository, tmp_path: Path
    ) -> None:
        at = NOW
        for _ in range(60):
            at += timedelta(hours=8)
            repository.resign_online(at)
        stock_updater(repository, tmp_path / "device", at + timedelta(hours=41)).refresh()
        with pytest.raises(ExpiredMetadataError):
            stock_updater(repository, tmp_path / "other", at + timedelta(hours=49)).refresh()

    def test_release_and_targets_by_hand(self, repository: ImageRepository) -> None:
        repository.publish("pairs", 1, V1, NOW)
        repository.resign(["targets", "release/pairs"], LATER)
        ends = repository.expiries()
        assert ends["targets"] == LATER + timedelta(days=180)
        assert ends["release/pairs"] == LATER + timedelta(days=90)
        with pytest.raises(UsageError, match="not_found"):
            repository.resign(["release/faces"], LATER)


def test_without_the_key_nothing_is_written(repository: ImageRepository, tmp_path: Path) -> None:
    repository.publish("pairs", 1, V1, NOW)
    next((tmp_path / "server" / "keys").glob("release.*.pem")).unlink()
    before = files(tmp_path / "server" / "tuf")
    with pytest.raises(UsageError) as caught:
        repository.publish("pairs", 2, V2, NOW)
    assert caught.value.code == "key_missing"
    assert files(tmp_path / "server" / "tuf") == before


def test_publishing_needs_neither_root_nor_targets_keys(repository: ImageRepository, tmp_path: Path) -> None:
    repository.ensure_model("pairs", NOW)
    for role in ("root-1", "root-2", "root-3", "targets"):
        repository.keys.move(role, tmp_path / "safe").unlink()
    repository.publish("pairs", 1, V1, NOW)
    assert stock_updater(repository, tmp_path / "device").get_targetinfo("pairs/1.json") is not None


def test_a_model_may_get_a_release_key_of_its_own(repository: ImageRepository, tmp_path: Path) -> None:
    repository.publish("pairs", 1, V1, NOW)
    repository.keys.create("release/pairs")
    repository.publish("pairs", 2, V2, NOW)
    assert stock_updater(repository, tmp_path / "device").get_targetinfo("pairs/2.json") is not None
    next((tmp_path / "server" / "keys").glob("release.*.pem")).unlink()
    repository.revoke("pairs", 1, NOW)


def test_directors_keys_are_in_targets_and_published_as_a_file(repository: ImageRepository, tmp_path: Path) -> None:
    updater = stock_updater(repository, tmp_path / "device")
    target = updater.get_targetinfo("system/director.json")
    assert target is not None
    assert list(target.custom["director"]) == [repository.keys.public("director").keyid]
    assert json.loads(Path(updater.download_target(target)).read_bytes()) == target.custom


def test_many_threads_publish_at_once(repository: ImageRepository, tmp_path: Path) -> None:
    repository.ensure_model("pairs", NOW)

    def publish(number: int) -> None:
        repository.publish("pairs", number, encode_manifest(make_manifest(number)), NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, range(1, 17)))
    updater = stock_updater(repository, tmp_path / "device")
    assert all(updater.get_targetinfo(f"pairs/{number}.json") for number in range(1, 17))
