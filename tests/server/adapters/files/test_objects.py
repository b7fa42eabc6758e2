"""The artifact store: named by digest, stored once, read in ranges."""

from pathlib import Path

import pytest

from wavegate_server.adapters.files.objects import Objects, file_sha256
from wavegate_shared.errors import UsageError


def test_a_file_is_stored_once_and_read_back_in_ranges(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 9000)
    objects = Objects(tmp_path / "store")
    sha256 = objects.put_file(tmp_path / "a")
    assert objects.put_file(tmp_path / "a") == sha256 == file_sha256(tmp_path / "a")
    assert objects.exists(sha256)
    assert objects.size(sha256) == 256 * 9000
    assert objects.open_range(sha256, 250, 10) == bytes(range(250, 256)) + bytes(range(4))
    objects.fetch_to(sha256, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("name", ["0" * 64, "short", "../../etc/passwd", "Z" * 64])
def test_what_is_not_stored_is_not_found(tmp_path: Path, name: str) -> None:
    objects = Objects(tmp_path / "store")
    for ask in (objects.size, lambda n: objects.open_range(n, 0, 1)):
        with pytest.raises(UsageError) as caught:
            ask(name)
        assert caught.value.code == "not_found"
