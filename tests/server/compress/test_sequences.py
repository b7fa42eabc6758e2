"""A recogniser of characters: its scores are decoded before they are judged, by the compressor as by the device."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.graphs import model_of
from tests.support.models import bundle_version
from wavegate_agent.adapters.serving.pipeline import load_version
from wavegate_server.adapters.files.bundles import Bundle, open_bundle, write_bundle
from wavegate_server.compress.measure.run import Score, score_model
from wavegate_shared.errors import UsageError

STEPS, CLASSES, SAMPLES = 12, 6, 40


def recogniser() -> onnx.ModelProto:
    """Scores that are the inputs, mixed a little."""
    mix = np.eye(CLASSES, dtype=np.float32) * 3 + 0.1
    nodes = [helper.make_node("MatMul", ["x", "mix"], ["y"], name="mix")]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", STEPS, CLASSES]) for name in ("x", "y"))
    return model_of(nodes, [x], [y], {"mix": mix})


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Inputs whose best classes spell texts of three characters, and the texts; one in eight of the texts is wrong."""
    rng = np.random.default_rng(3)
    spelt = np.zeros((SAMPLES, STEPS), np.int64)
    wanted = np.full((SAMPLES, 5), -1, np.int64)
    for row in range(SAMPLES):
        text = rng.integers(1, CLASSES, 3)
        spelt[row, 1:10] = np.stack([text, text, np.zeros(3, np.int64)], axis=1).reshape(-1)
        wanted[row, :3] = text
        if row % 8 == 0:
            wanted[row, 1] = 1 + text[1] % (CLASSES - 1)
    return np.eye(CLASSES, dtype=np.float32)[spelt], wanted


def bundle_of(directory: Path, metric: str, **fields: object) -> Path:
    directory.mkdir()
    onnx.save(recogniser(), str(directory / "model.onnx"))
    x, wanted = texts()
    np.savez(directory / "golden.npz", allow_pickle=False, **{"input.x": x, "label": wanted})
    down = metric == "character_error_rate"
    document: dict[str, object] = {
        "schema": 1,
        "model": "reader",
        "task": "recognition",
        "model_file": "model.onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, STEPS, CLASSES]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, STEPS, CLASSES]}],
        "post": [{"op": "ctc", "output": "y"}],
        "metric": {"name": metric, "unit": "share", "direction": "down" if down else "up"},
        "golden": {"file": "golden.npz", "ceiling": 0.1} if down else {"file": "golden.npz", "floor": 0.8},
    }
    write_bundle(directory, {**document, **fields}, {n: directory / n for n in ("model.onnx", "golden.npz")})
    return directory


def scored(bundle: Bundle) -> Score:
    spec = bundle.spec
    return score_model(bundle.model_path, bundle.path("golden.npz"), spec, bundle.directory)


@pytest.mark.parametrize(("metric", "value"), [("character_error_rate", 1 / 24), ("exact_match", 7 / 8)])
def test_server_and_device_read_the_same(tmp_path: Path, metric: str, value: float) -> None:
    with open_bundle(bundle_of(tmp_path / "b", metric)) as bundle:
        score = scored(bundle)
    assert score.value == pytest.approx(value)
    assert len(set(score.top1)) > 10  # a number for each text, not the place of its largest score
    directory, _ = bundle_version(tmp_path, 1, tmp_path / "b")
    result = load_version(directory, intra_threads=1, check_digests=True).golden(rest=0.0)
    assert result.passed
    assert result.value == pytest.approx(value)


def test_scores_that_were_not_decoded_would_be_all_wrong(tmp_path: Path) -> None:
    with open_bundle(bundle_of(tmp_path / "b", "exact_match", post=[])) as bundle:
        assert scored(bundle).value == 0.0


def test_an_operation_on_an_output_there_is_not_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="take the output z"),
        open_bundle(bundle_of(tmp_path / "b", "exact_match", post=[{"op": "ctc", "output": "z"}])),
    ):
        pass
