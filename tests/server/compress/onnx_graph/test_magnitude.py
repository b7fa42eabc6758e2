"""Magnitude pruning: zeros shrink the compressed download, and nothing claims more than that."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.graphs import conv_net, regression_net, sensor_samples, write_bundle_of
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.job import run_job
from wavegate_server.compress.onnx_graph.magnitude import UNCHANGED, download_bytes, prune
from wavegate_server.compress.onnx_graph.quantise import apply
from wavegate_server.core.compress.budget import parse_budget
from wavegate_server.core.compress.recipes import named


def weights(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def test_by_sparsity_the_smallest_share_of_each_weight_goes() -> None:
    before, model = weights(conv_net(), "w2"), conv_net()
    share = prune(model, sparsity=0.4)
    after = weights(model, "w2")
    assert share == pytest.approx(0.4, abs=0.01)
    kept = after != 0
    assert np.abs(before[~kept]).max() <= np.abs(before[kept]).min()
    np.testing.assert_array_equal(before[kept], after[kept])


def test_by_threshold_what_is_below_it_goes() -> None:
    model = conv_net()
    prune(model, threshold=0.01)
    left = np.abs(weights(model, "w2"))
    assert left[left > 0].min() >= 0.01
    assert (left == 0).any()


def test_small_tensors_are_left_alone() -> None:
    model = conv_net()
    prune(model, sparsity=0.9)
    assert (weights(model, "head") != 0).all()


def test_the_file_keeps_its_size_and_only_the_download_shrinks(tmp_path: Path) -> None:
    onnx.save(conv_net(), str(tmp_path / "m.onnx"))
    made = apply(named("magnitude-40-percent"), tmp_path / "m.onnx", tmp_path / "p.onnx", [])
    assert (tmp_path / "p.onnx").stat().st_size == pytest.approx((tmp_path / "m.onnx").stat().st_size, rel=0.001)
    assert download_bytes(tmp_path / "p.onnx") < 0.85 * download_bytes(tmp_path / "m.onnx")
    assert UNCHANGED in made["notes"][0]
    assert set(made["plan"].values()) == {"float32"}


@pytest.mark.timeout(240)
def test_it_is_offered_for_a_download_and_claims_no_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a download item it is tried and judged at the original's own speed; without one its row says why it was not."""
    recipes = (named("int8-dynamic-per-tensor"), named("magnitude-40-percent"))
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", recipes)
    source = write_bundle_of(tmp_path / "in", regression_net(), *sensor_samples(200, 2), sensor_samples(64, 3)[0])
    with open_bundle(source) as bundle:
        items = parse_budget("download=-15%,error=+500%", bundle.spec.metric)
        asked = run_job(bundle, items, tmp_path / "out")
        plain = run_job(bundle, parse_budget("size=-40%,error=+500%", bundle.spec.metric), tmp_path / "plain")
    row = next(c for c in asked.candidates if c.recipe == "magnitude-40-percent")
    assert row.measured is not None
    assert row.measured.p50_ms == row.measured.p50_before
    assert row.measured.download_bytes < row.measured.download_before
    assert UNCHANGED in row.reason
    listed = next(c for c in plain.candidates if c.recipe == "magnitude-40-percent")
    assert listed.measured is None
    assert UNCHANGED in listed.reason
