"""Bias correction: what rounding shifts is taken off, of each layer's own bias only."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.support.graphs import model_of
from wavegate_server.compress.onnx_graph import bias_correction
from wavegate_server.compress.onnx_graph.quantise import apply
from wavegate_server.core.compress.recipes import named

RECIPE = named("int8-static-per-tensor")
FEEDS = [{"x": np.random.default_rng(at).uniform(0, 1, (1, 4, 8, 8)).astype(np.float32)} for at in range(8)]


def _deep(layers: int = 6, *, shared: bool = False, biases: bool = True) -> onnx.ModelProto:
    """Convolutions with a ReLU behind each but the last: inputs of every layer are never negative."""
    rng = np.random.default_rng(5)
    nodes: list[Any] = []
    arrays: dict[str, Any] = {}
    at = "x"
    for number in range(layers):
        arrays[f"w{number}"] = rng.normal(0.06, 0.3, (4, 4, 3, 3)).astype(np.float32)
        held = "b0" if shared else f"b{number}"
        arrays[held] = rng.normal(0, 0.1, 4).astype(np.float32)
        inputs = [at, f"w{number}", held] if biases else [at, f"w{number}"]
        last = number == layers - 1
        made = "y" if last else f"c{number}"
        nodes.append(helper.make_node("Conv", inputs, [made], name=f"conv{number}", pads=[1, 1, 1, 1]))
        if not last:
            at = f"r{number}"
            nodes.append(helper.make_node("Relu", [made], [at], name=f"relu{number}"))
    kept = arrays if biases else {name: array for name, array in arrays.items() if name.startswith("w")}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", "y"))
    return model_of(nodes, [x], [y], kept)


def _outputs(path: Path) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in FEEDS])


def _shift(path: Path, wanted: np.ndarray[Any, Any]) -> float:
    """Mean error of each channel, as the root of its mean square."""
    return float(np.sqrt(((_outputs(path) - wanted).mean(axis=(0, 2, 3)) ** 2).mean()))


def _without_correction(model: onnx.ModelProto, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    onnx.save(model, folder / "m.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(bias_correction, "correct", lambda *_: 0)
        apply(RECIPE, folder / "m.onnx", folder / "q.onnx", FEEDS)
    return folder / "m.onnx", folder / "q.onnx"


def test_channels_are_shifted_less_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, quantised = _without_correction(_deep(), tmp_path, monkeypatch)
    wanted, before = _outputs(source), quantised.stat().st_size
    shifted = _shift(quantised, wanted)
    corrected = bias_correction.correct(source, quantised, FEEDS)
    assert corrected == 6
    assert _shift(quantised, wanted) < 0.6 * shifted
    assert quantised.stat().st_size == before


def test_a_recipe_says_how_many_layers_were_corrected(tmp_path: Path) -> None:
    onnx.save(_deep(), tmp_path / "m.onnx")
    kept = apply(RECIPE, tmp_path / "m.onnx", tmp_path / "q.onnx", FEEDS, float_nodes=["conv0", "conv1"])
    assert "biases of 4 layers corrected for what rounding shifts" in kept["notes"]


def test_a_bias_that_layers_share_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, quantised = _without_correction(_deep(shared=True), tmp_path, monkeypatch)
    wanted = _outputs(source)
    shifted = _shift(quantised, wanted)
    bias_correction.correct(source, quantised, FEEDS)
    assert _shift(quantised, wanted) <= shifted


def test_layers_without_a_bias_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, quantised = _without_correction(_deep(biases=False), tmp_path, monkeypatch)
    as_it_was = quantised.read_bytes()
    assert bias_correction.correct(source, quantised, FEEDS) == 0
    assert quantised.read_bytes() == as_it_was
