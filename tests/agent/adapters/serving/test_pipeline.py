"""A version from directory to answers, in this process."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.support.models import artifact, image_version, linear_version, text_version
from wavegate_agent.adapters.serving.pipeline import load_version
from wavegate_agent.core.oip import Tensor, pack_strings
from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.manifest import Manifest, encode_manifest
from wavegate_shared.metrics import Direction, Metric


def load(directory: Path) -> Any:
    return load_version(directory, intra_threads=1, check_digests=True)


def rewrite(directory: Path, manifest: Manifest, **changes: Any) -> Path:
    """The same version with another manifest; digests follow the files."""
    fresh = [artifact(directory / one.name, one.role) for one in manifest.artifacts]
    changed = msgspec.structs.replace(manifest, **{"artifacts": fresh, **changes})
    (directory / "manifest.json").write_bytes(encode_manifest(changed))
    return directory


def test_golden_set_of_text_goes_through_the_whole_pipeline(tmp_path: Path) -> None:
    version = load(text_version(tmp_path, 1)[0])
    result = version.golden(rest=0.0)
    assert (result.passed, result.value, result.samples, result.max_difference) == (True, 1.0, 4, 0.0)


def test_a_shifted_reference_shows_as_difference(tmp_path: Path) -> None:
    directory, manifest = linear_version(tmp_path, 1)
    with np.load(directory / "golden.npz") as golden:
        arrays = {name: golden[name] for name in golden.files}
    arrays["reference"][3] += 0.5
    np.savez(directory / "golden.npz", allow_pickle=False, **arrays)
    result = load(rewrite(directory, manifest)).golden(rest=0.0)
    assert result.passed
    assert result.max_difference == pytest.approx(0.5, abs=1e-5)


def test_an_error_metric_has_a_ceiling(tmp_path: Path) -> None:
    directory, manifest = linear_version(tmp_path, 1)
    metric = Metric("mean_absolute_error", "units", Direction.DOWN)
    result = load(rewrite(directory, manifest, metric=metric)).golden(rest=0.0)
    assert not result.passed
    assert result.value is not None
    assert result.value > result.limit


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("golden.npz", b"not a zip", "load_failed"),
        ("golden.npz", None, "load_failed"),
        ("model.onnx", None, "load_failed"),
        ("model.onnx", b"", "model_rejected"),
        ("model.onnx", b"\x08\x08garbage", "model_rejected"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, data: bytes | None, code: str) -> None:
    directory, manifest = linear_version(tmp_path, 1)
    if data is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(data)
        rewrite(directory, manifest)
    with pytest.raises(DeviceError) as refused:
        load(directory)
    assert refused.value.code == code


@pytest.mark.parametrize("missing", ["label", "input.x"])
def test_a_golden_set_without_samples_is_refused(tmp_path: Path, missing: str) -> None:
    directory, manifest = linear_version(tmp_path, 1)
    with np.load(directory / "golden.npz") as golden:
        arrays = {name: golden[name] for name in golden.files if name != missing}
    np.savez(directory / "golden.npz", allow_pickle=False, **arrays)
    with pytest.raises(DeviceError, match="golden set"):
        load(rewrite(directory, manifest))


def test_a_pickle_in_the_golden_set_is_not_opened(tmp_path: Path) -> None:
    directory, manifest = linear_version(tmp_path, 1)
    arrays: dict[str, Any] = {"input.x": np.array([{"a": 1}], dtype=object), "label": np.array([1])}
    np.savez(directory / "golden.npz", **arrays)
    with pytest.raises(DeviceError, match="golden set"):
        load(rewrite(directory, manifest))


def test_an_unknown_metric_means_the_device_lacks_something(tmp_path: Path) -> None:
    directory, manifest = linear_version(tmp_path, 1)
    with pytest.raises(DeviceError) as refused:
        load(rewrite(directory, manifest, metric=Metric("bleu")))
    assert refused.value.code == "incompatible"


def test_a_manifest_that_is_not_one_is_refused(tmp_path: Path) -> None:
    directory, _ = linear_version(tmp_path, 1)
    (directory / "manifest.json").write_text(json.dumps({"schema": 9}))
    with pytest.raises(DeviceError, match=r"manifest\.json"):
        load(directory)


def test_another_manifest_than_asked_for_is_refused(tmp_path: Path) -> None:
    directory, _ = linear_version(tmp_path, 1)
    with pytest.raises(DeviceError, match="not the one"):
        load_version(directory, intra_threads=1, check_digests=False, expected="0" * 64)


def test_inputs_must_be_the_declared_ones(tmp_path: Path) -> None:
    version = load(linear_version(tmp_path, 1)[0])
    assert version.infer((Tensor("x", "FP32", (1, 4), [1, 1, 1, 1]),))["logits"].tolist() == [[-4, 4]]
    for tensors in ((), (Tensor("y", "FP32", (1, 4), [1] * 4),), (Tensor("x", "FP32", (4,), [1] * 4),)):
        with pytest.raises(UsageError):
            version.infer(tensors)


def test_pictures_go_in_as_they_are_or_as_the_graph_takes_them(tmp_path: Path) -> None:
    version = load(image_version(tmp_path, 1)[0])
    assert version.golden(rest=0.0).passed
    bright = Tensor("image", "UINT8", (1, 4, 4), [255] * 16)
    ready = Tensor("image", "FP32", (1, 1, 4, 4), [-1.0] * 16)
    assert version.infer((bright,))["logits"].tolist() == [[-1.0, 1.0]]
    assert version.infer((ready,))["logits"].tolist() == [[1.0, -1.0]]
    with pytest.raises(UsageError, match="image"):
        version.infer((Tensor("image", "UINT8", (1, 5, 5), [255] * 25),))
    with pytest.raises(UsageError, match="image"):
        version.infer((Tensor("image", "INT64", (1, 4, 4), [255] * 16),))


def picture(level: int, kind: str) -> bytes:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    file = io.BytesIO()
    pillow.fromarray(np.full((9, 7), level, np.uint8)).save(file, kind)
    data: bytes = file.getvalue()
    return data


def test_image_files_are_decoded_from_binary_data_and_from_base64(tmp_path: Path) -> None:
    dark, bright = picture(0, "PNG"), picture(255, "JPEG")
    version = load(image_version(tmp_path, 1, files=[dark, bright])[0])
    assert version.golden(rest=0.0).passed
    binary = Tensor("image", "BYTES", (2,), memoryview(pack_strings([bright, dark])))
    text = Tensor("image", "BYTES", (1,), [base64.b64encode(bright).decode()])
    assert version.infer((binary,))["logits"].argmax(axis=1).tolist() == [1, 0]
    assert version.infer((text,))["logits"].argmax(axis=1).tolist() == [1]
    with pytest.raises(UsageError, match="JPEG or PNG"):
        version.infer((Tensor("image", "BYTES", (1,), memoryview(pack_strings([b"nonsense"]))),))
