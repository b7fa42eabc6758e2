"""Where the demo works: never over what it did not make."""

from pathlib import Path

import pytest

from wavegate_server.cli.demo import _workplace
from wavegate_shared.errors import UsageError


def used(directory: Path) -> None:
    with _workplace(directory, fresh=False) as work:
        (work / "server").mkdir()
        (work / "server" / "wavegate.db").write_text("rows")


def test_a_directory_of_an_earlier_demo_is_refused_with_what_to_do(tmp_path: Path) -> None:
    used(tmp_path / "w")
    with (
        pytest.raises(
            UsageError, match="used by an earlier demo: choose another --directory, or start anew with --fresh"
        ),
        _workplace(tmp_path / "w", fresh=False),
    ):
        pass
    assert (tmp_path / "w" / "server" / "wavegate.db").is_file()


def test_fresh_deletes_what_a_demo_left(tmp_path: Path) -> None:
    used(tmp_path / "w")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine").touch()
    (tmp_path / "w" / "link").symlink_to(kept)
    with _workplace(tmp_path / "w", fresh=True) as work:
        assert [entry.name for entry in work.iterdir()] == [".wavegate-demo"]
    assert (kept / "mine").is_file()


@pytest.mark.parametrize("fresh", [False, True])
def test_other_files_are_never_touched(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"), _workplace(tmp_path, fresh=fresh):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
