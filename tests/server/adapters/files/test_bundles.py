"""Opening bundles: the good one as directory and zip, every bad one refused with `bundle_invalid` and nothing left behind."""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import rewrite_spec, write_pair_bundle
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_shared.errors import UsageError


def zipped(directory: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(directory.iterdir()):
            archive.write(path, prefix + path.name)
    return target


def test_a_directory_and_its_zip_are_the_same_bundle(tmp_path: Path) -> None:
    directory = write_pair_bundle(tmp_path / "b")
    with open_bundle(directory) as plain, open_bundle(zipped(directory, tmp_path / "b.zip", "pairs/")) as packed:
        assert plain.spec == packed.spec
        assert packed.model_path.read_bytes() == plain.model_path.read_bytes()
        inside = packed.directory
    assert not inside.exists()


def _truncate(directory: Path) -> None:
    path = directory / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])


def _remove_golden(directory: Path) -> None:
    (directory / "golden.npz").unlink()


def _link_out(directory: Path) -> None:
    (directory / "vocab.txt").unlink()
    (directory / "vocab.txt").symlink_to("/etc/hostname")


def _garble_yaml(directory: Path) -> None:
    (directory / "bundle.yaml").write_text("{ not: [yaml", encoding="utf-8")


def _remove_yaml(directory: Path) -> None:
    (directory / "bundle.yaml").unlink()


def change(**fields: object) -> Callable[[Path], None]:
    return lambda directory: rewrite_spec(directory, **fields)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_truncate, "truncated or changed"),
        (_remove_golden, "incomplete"),
        (_link_out, "no links"),
        (_garble_yaml, "not YAML"),
        (_remove_yaml, "is this a bundle"),
        (change(schema=9), "schema 9"),
        (change(model="../evil"), "lower-case"),
        (change(metric={"name": "vibes"}), "accuracy"),
        (change(golden={"file": "golden.npz"}), "floor"),
        (change(golden={"file": "other.npz", "floor": 0.5}), "digest of other.npz"),
        (change(pre=[{"op": "shell"}]), "wordpiece"),
        (change(pre=[{"op": "wordpiece", "input": "text"}]), "lacks vocab"),
        (change(pre=[{"op": "resize", "input": "text", "size": [0, 4]}]), "resize"),
        (change(pre=[{"op": "scale", "input": "nowhere", "divisor": 2}]), "'nowhere', which is neither declared"),
        (change(post=[{"op": "nms"}]), "post operation 'nms'"),
        (change(stored="int3"), "float16"),
        (change(colour="red"), "colour"),
        (change(model_file=None), "model_file"),
        (change(files={"../../etc/passwd": "0" * 64, "model.onnx": "0" * 64}), "digest"),
    ],
)
def test_a_bundle_that_is_wrong_is_refused(tmp_path: Path, spoil: Callable[[Path], None], says: str) -> None:
    directory = write_pair_bundle(tmp_path / "b")
    spoil(directory)
    with pytest.raises(UsageError, match=says) as caught, open_bundle(directory):
        pass
    assert caught.value.code == "bundle_invalid"


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    whole = zipped(write_pair_bundle(tmp_path / "b"), tmp_path / "b.zip").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        (tmp_path / "cut.zip").write_bytes(whole[:size])
        with pytest.raises(UsageError) as caught, open_bundle(tmp_path / "cut.zip"):
            pass
        assert caught.value.code == "bundle_invalid"


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt"])
def test_a_zip_that_would_write_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(UsageError, match="leave the bundle"), open_bundle(tmp_path / "b.zip"):
        pass
    assert not (tmp_path / "out.txt").exists()


def test_nothing_is_left_in_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    directory = write_pair_bundle(tmp_path / "b")
    _truncate(directory)
    with pytest.raises(UsageError), open_bundle(zipped(directory, tmp_path / "b.zip")):
        pass
    assert list(scratch.iterdir()) == []


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither"), open_bundle(tmp_path / "absent"):
        pass
