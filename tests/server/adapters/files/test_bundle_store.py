"""A version can be made a bundle again, byte for byte, and one of an older release says what to do."""

from pathlib import Path

import pytest

from tests.support.bundles import write_pair_bundle
from wavegate_server.adapters.files.bundle_store import is_kept, keep, restore
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.adapters.files.objects import Objects
from wavegate_shared.errors import UsageError


def test_what_was_kept_comes_back_byte_for_byte(tmp_path: Path) -> None:
    source, objects = write_pair_bundle(tmp_path / "in"), Objects(tmp_path / "objects")
    with open_bundle(source) as bundle:
        info = keep(objects, bundle)
        assert keep(objects, bundle) == info
    restore(objects, info, tmp_path / "out")
    with open_bundle(tmp_path / "out") as again:
        assert again.spec == bundle.spec
    for file in source.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_version_whose_files_were_not_kept_says_what_to_do(tmp_path: Path) -> None:
    info = {"bundle_sha256": "0" * 64, "parameters": 3}
    assert not is_kept(info)
    with pytest.raises(UsageError, match="import the bundle again"):
        restore(Objects(tmp_path / "objects"), info, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_gone_leaves_no_bundle(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects")
    with open_bundle(write_pair_bundle(tmp_path / "in")) as bundle:
        info = keep(objects, bundle)
    digest = info["files"]["vocab.txt"]
    (tmp_path / "objects" / digest[:2] / digest).unlink()
    with pytest.raises(UsageError, match="not in the store"):
        restore(objects, info, tmp_path / "out")
    assert not (tmp_path / "out" / "bundle.yaml").exists()
