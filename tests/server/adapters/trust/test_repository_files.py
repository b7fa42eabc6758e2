from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.trust import NOW, make_repository
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.repository_files import KEEP_VERSIONS, target_name
from wavegate_shared.errors import UsageError


@pytest.fixture
def repository(tmp_path: Path) -> ImageRepository:
    return make_repository(tmp_path / "server")


def test_a_role_with_a_slash_has_a_safe_file_name(repository: ImageRepository, tmp_path: Path) -> None:
    repository.ensure_model("pairs", NOW)
    assert (tmp_path / "server" / "tuf" / "metadata" / "1.release%2Fpairs.json").is_file()
    assert repository.read("metadata/1.release%2Fpairs.json") is not None


def test_targets_stand_under_their_digest() -> None:
    assert target_name("pairs/1.json", "ab") == "targets/pairs/ab.1.json"
    assert target_name("1.json", "ab") == "targets/ab.1.json"


@pytest.mark.parametrize(
    "name",
    [
        "metadata/../keys/keys.json",
        "metadata/..",
        "metadata/",
        "metadata",
        "",
        "/etc/passwd",
        "keys/keys.json",
        "targets/../../keys/keys.json",
        "targets/system/../../../keys/keys.json",
        "targets//etc/passwd",
        "targets/system",
        ".lock",
        "metadata/.lock",
        "metadata/9.root.json",
        "metadata/1.root.json\x00",
        "metadata/%2e%2e%2fkeys%2fkeys.json",
    ],
)
def test_only_documents_can_be_read(repository: ImageRepository, name: str) -> None:
    assert repository.read(name) is None


def test_old_metadata_are_pruned_but_never_roots(repository: ImageRepository, tmp_path: Path) -> None:
    for hours in range(0, 20 * 96, 96):
        repository.resign_online(NOW + timedelta(hours=hours))
    metadata = tmp_path / "server" / "tuf" / "metadata"
    assert len(list(metadata.glob("*.snapshot.json"))) == KEEP_VERSIONS
    assert (metadata / "1.root.json").is_file()


def test_damaged_metadata_are_told(repository: ImageRepository, tmp_path: Path) -> None:
    (tmp_path / "server" / "tuf" / "metadata" / "timestamp.json").write_text("junk")
    with pytest.raises(UsageError, match="restore it from a backup"):
        repository.versions()
