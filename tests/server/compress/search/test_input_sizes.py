"""Smaller inputs: what the declared operations allow, and a whole job on a net that is still right on smaller pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.graphs import SIDE, conv_net, stripes
from wavegate_server.adapters.files.bundles import open_bundle, write_bundle
from wavegate_server.compress.job import run_job
from wavegate_server.compress.search.input_sizes import smaller_inputs
from wavegate_server.core.compress.budget import parse_budget
from wavegate_server.core.compress.recipes import named

RESIZE: dict[str, Any] = {"op": "resize", "input": "photo", "size": [224, 160]}
TURN: dict[str, Any] = {"op": "transpose", "input": "photo", "output": "x"}
WORDS: dict[str, Any] = {
    "op": "wordpiece",
    "input": "text",
    "vocab": "v",
    "max_length": 64,
    "outputs": {"input_ids": "INT64"},
}


def test_pictures_shrink_in_steps_that_keep_their_ratio() -> None:
    found = smaller_inputs([RESIZE, TURN], 0)
    assert [each.name for each in found] == ["input192x144", "input160x128", "input144x96"]
    assert found[0].pre == [{**RESIZE, "size": [192, 144]}, TURN]
    assert found[0].sides == (192, 144)
    assert found[0].input == "x"
    assert RESIZE["size"] == [224, 160], "the bundle's own operations stay"


def test_a_crop_behind_a_resize_shrinks_with_it() -> None:
    steps = [{**RESIZE, "size": [256, 256]}, {"op": "crop", "input": "photo", "size": [224, 224]}, TURN]
    first = smaller_inputs(steps, 0)[0]
    assert [step["size"] for step in first.pre[:2]] == [[219, 219], [192, 192]]


@pytest.mark.parametrize(
    "steps", [[], [TURN], [{"op": "crop", "input": "photo", "size": [64, 64]}, RESIZE], [{**RESIZE, "size": [4, 4]}]]
)
def test_without_a_resize_in_front_there_is_nothing_to_shrink(steps: list[dict[str, Any]]) -> None:
    assert smaller_inputs(steps, 0) == []


@pytest.mark.parametrize(
    ("longest", "limits"), [(64, [48, 32]), (48, [32]), (32, [16]), (16, []), (0, []), (500, [48, 32])]
)
def test_texts_are_cut_to_what_would_change_something(longest: int, limits: list[int]) -> None:
    found = smaller_inputs([WORDS], longest)
    assert [each.pre[0]["max_length"] for each in found] == limits
    assert [each.name for each in found] == [f"tokens{limit}" for limit in limits]


def enlarged(samples: int, seed: int) -> tuple[Any, Any]:
    images, labels = stripes(samples, seed)
    return images[:, 0].repeat(2, axis=1).repeat(2, axis=2), labels


def write_resized_bundle(directory: Path) -> Path:
    """The stripes net on pictures of twice the size it was made for, which a bundle may well declare."""
    directory.mkdir(parents=True)
    model = conv_net()
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_value = 2 * SIDE
    onnx.save(model, str(directory / "model.onnx"))
    for name, count, seed in (("golden", 300, 2), ("calib", 64, 3)):
        images, labels = enlarged(count, seed)
        np.savez(directory / f"{name}.npz", allow_pickle=False, **{"input.photo": images, "label": labels})
    document: dict[str, object] = {
        "schema": 1,
        "model": "stripes",
        "task": "image-classification",
        "model_file": "model.onnx",
        "inputs": [{"name": "photo", "datatype": "FP32", "shape": [-1, 2 * SIDE, 2 * SIDE]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}],
        "pre": [
            {"op": "resize", "input": "photo", "size": [2 * SIDE, 2 * SIDE]},
            {"op": "transpose", "input": "photo", "output": "image"},
        ],
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": 0.1},
        "calib": {"file": "calib.npz"},
    }
    names = ("model.onnx", "golden.npz", "calib.npz")
    write_bundle(directory, document, {name: directory / name for name in names})
    return directory


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_job_offers_the_smaller_input_with_its_pre_processing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegate_server.compress.search.input_sizes._IMAGE_SHARES", (0.875,))
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", (named("int8-static-per-channel"),))
    with open_bundle(write_resized_bundle(tmp_path / "in")) as bundle:
        items = parse_budget("speed=100x,drop=60pt", bundle.spec.metric)
        result = run_job(bundle, items, tmp_path / "out")
    tried = {candidate.recipe: candidate for candidate in result.candidates}
    assert {"input28x28", "input28x28+int8-static-per-channel"} <= set(tried)
    measured = tried["input28x28"].measured
    assert measured is not None
    assert measured.p50_ms < measured.p50_before
