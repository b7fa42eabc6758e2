"""The traps that were met on real models; each stays answered."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.bundles import relist, write_pair_bundle
from tests.support.distil import needs_distil
from tests.support.graphs import conv_net, model_of, stripes
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.job import run_job
from wavegate_server.compress.measure.samples import Feed
from wavegate_server.compress.onnx_graph import graphs
from wavegate_server.compress.onnx_graph.inspect import inspect_model
from wavegate_server.compress.onnx_graph.quantise import apply
from wavegate_server.compress.process.children import run_child
from wavegate_server.core.compress.budget import parse_budget
from wavegate_server.core.compress.recipes import named
from wavegate_shared.errors import UsageError

FEEDS: list[Feed] = [{"image": image[None]} for image in stripes(24, 3)[0]]


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def shape_of(info: onnx.ValueInfoProto) -> list[int]:
    return [side.dim_value for side in info.type.tensor_type.shape.dim]


def prepared(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, str(folder / "given.onnx"))
    job = {
        "source": str(folder / "given.onnx"),
        "target": str(folder / "base.onnx"),
        "stored": "float32",
        "probe": None,
    }
    run_child("wavegate_server.compress.onnx_graph.clean", job)
    return folder / "base.onnx"


def outputs(path: Path, feeds: list[Feed]) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run(None, feed)[0]) for feed in feeds])


def classes(path: Path) -> list[int]:
    return [int(each) for each in outputs(path, FEEDS).argmax(axis=1)]


def test_a_wrapper_that_forgot_eval_is_not_exported_with_its_dropout_on(tmp_path: Path) -> None:
    needs_distil()
    import torch

    from wavegate_server.compress.torch_module.export import Names, export

    class Wrapper(torch.nn.Module):  # starts in train mode, whatever it wraps
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner, self.drop = inner, torch.nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(self.inner(x))

    inner = torch.nn.Linear(4, 3).eval()
    x = np.ones((1, 4), np.float32)
    wanted = inner(torch.from_numpy(x)).detach().numpy()
    wrapper = Wrapper(inner)
    assert wrapper.training
    assert export(wrapper, [{"x": x}], Names(["x"], ["y"]), tmp_path / "m.onnx") < 1e-5
    assert np.abs(outputs(tmp_path / "m.onnx", [{"x": x}]) - wanted).max() < 1e-5


def test_per_channel_on_an_old_opset_is_upgraded_first(tmp_path: Path) -> None:
    base = prepared(conv_net(opset=11), tmp_path)
    apply(named("int8-static-per-channel"), base, tmp_path / "q.onnx", FEEDS)
    assert graphs.opset(onnx.load(str(tmp_path / "q.onnx"))) >= graphs.MIN_OPSET
    onnx.checker.check_model(str(tmp_path / "q.onnx"), full_check=True)
    assert classes(tmp_path / "q.onnx") == classes(base)


def test_stale_shapes_are_stripped(tmp_path: Path) -> None:
    model = conv_net()
    model.graph.value_info.append(value("r2", 1, 3, 99, 99))
    base = prepared(model, tmp_path)
    assert not [info for info in onnx.load(str(base)).graph.value_info if 99 in shape_of(info)]
    apply(named("int8-dynamic-per-channel"), base, tmp_path / "q.onnx", [])
    assert classes(tmp_path / "q.onnx") == classes(base)


def test_a_gemm_bias_of_one_row_falls_back_to_one_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Gemm", ["x", "a", "row"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "b", "c"], ["y"], name="last"),
    ]
    tensors = {
        "a": rng.normal(size=(32, 64)).astype(np.float32),
        "row": rng.normal(size=(1, 64)).astype(np.float32),
        "b": rng.normal(size=(64, 3)).astype(np.float32),
        "c": np.zeros(3, np.float32),
    }
    model = model_of(nodes, [value("x", 1, 32)], [value("y", 1, 3)], tensors)
    onnx.save(model, str(tmp_path / "m.onnx"))
    feeds: list[Feed] = [{"x": rng.normal(size=(1, 32)).astype(np.float32)} for _ in range(16)]
    made = apply(named("int8-static-matmul"), tmp_path / "m.onnx", tmp_path / "q.onnx", feeds)
    assert any("one scale a tensor: per-channel failed" in note for note in made["notes"])
    assert made["plan"] == {"first": "int8", "last": "float32"}
    wanted, got = outputs(tmp_path / "m.onnx", feeds), outputs(tmp_path / "q.onnx", feeds)
    assert np.abs(wanted - got).max() < 0.1 * np.abs(wanted).max()


def test_histograms_on_variable_shapes_fall_back_to_minmax(tmp_path: Path) -> None:
    model = conv_net()
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = f"s{side.dim_value}"
    onnx.save(model, str(tmp_path / "m.onnx"))
    wide: list[Feed] = [{"image": np.tile(feed["image"], (1, 1, 1, 2))} for feed in FEEDS[:4]]
    made = apply(named("int8-static-entropy"), tmp_path / "m.onnx", tmp_path / "q.onnx", [*FEEDS[:8], *wide])
    assert "min-max ranges: entropy needs inputs of one shape" in made["notes"]
    assert outputs(tmp_path / "q.onnx", wide).shape == (4, 4)


def test_dynamic_int8_is_not_tried_on_convolutions() -> None:
    assert not {p.recipe for p in inspect_model(conv_net()).recipes if "dynamic" in p.recipe}


def detector() -> onnx.ModelProto:
    """Boxes in pixels and scores below one, in one output: what one common scale would kill."""
    rng = np.random.default_rng(4)
    shapes = {"trunk": (32, 1, 3, 3), "boxes": (4, 32, 1, 1), "scores": (2, 32, 1, 1)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) / 6 for name, shape in shapes.items()}
    tensors["pixels"] = np.array(640.0, np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "trunk"], ["t"], name="trunk", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["t"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "boxes"], ["b"], name="box_head"),
        helper.make_node("Mul", ["b", "pixels"], ["px"], name="to_pixels"),
        helper.make_node("Conv", ["r", "scores"], ["s"], name="score_head"),
        helper.make_node("Sigmoid", ["s"], ["p"], name="sigmoid"),
        helper.make_node("Concat", ["px", "p"], ["out"], name="joined", axis=1),
    ]
    return model_of(nodes, [value("image", 1, 1, 16, 16)], [value("out", 1, 6, 16, 16)], tensors)


def test_the_tail_of_a_detector_stays_float_and_its_scores_alive(tmp_path: Path) -> None:
    onnx.save(detector(), str(tmp_path / "m.onnx"))
    recipe = named("int8-static-per-channel")
    made = apply(recipe, tmp_path / "m.onnx", tmp_path / "q.onnx", FEEDS, float_nodes=["box_head", "score_head"])
    assert made["plan"] == {"trunk": "int8", "box_head": "float32", "score_head": "float32"}
    wanted, got = (outputs(tmp_path / name, FEEDS)[:, 4:] for name in ("m.onnx", "q.onnx"))
    assert np.abs(wanted - got).max() < 0.1
    assert graphs.output_layer(detector()) == ["box_head", "score_head"]
    planned = {p.recipe for p in inspect_model(detector(), "detector").recipes}
    assert "int8-static-per-channel" in planned
    assert not {op for name in planned for op in named(name).ops} & {"Concat", "Sigmoid", "Mul", "Add"}


@pytest.mark.parametrize("recipe", ["int8-static-per-channel", "int8-static-per-tensor", "int8-static-percentile"])
def test_a_range_is_of_what_the_activation_lets_through(tmp_path: Path, recipe: str) -> None:
    """A Clip(0, 6) behind wide sums: a scale for the sums would leave a few steps for all that comes out of it."""
    rng = np.random.default_rng(6)
    tensors = {
        "a": rng.normal(0, 60, (8, 1, 3, 3)).astype(np.float32),
        "b": rng.normal(0, 0.2, (4, 8, 1, 1)).astype(np.float32),
        "low": np.array(0.0, np.float32),
        "high": np.array(6.0, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["s"], name="first"),
        helper.make_node("Clip", ["s", "low", "high"], ["r"], name="clip"),
        helper.make_node("Conv", ["r", "b"], ["y"], name="last"),
    ]
    onnx.save(
        model_of(nodes, [value("image", 1, 1, 16, 16)], [value("y", 1, 4, 14, 14)], tensors), str(tmp_path / "m.onnx")
    )
    apply(named(recipe), tmp_path / "m.onnx", tmp_path / "q.onnx", FEEDS)
    made = onnx.load(str(tmp_path / "q.onnx"))
    assert "Clip" not in {node.op_type for node in made.graph.node}
    scales = {t.name: float(numpy_helper.to_array(t).max()) for t in made.graph.initializer if t.name == "r_scale"}
    assert scales["r_scale"] <= 6 / 255 * 1.01


def test_zeroed_weights_claim_neither_size_nor_another_recipe(tmp_path: Path) -> None:
    """Half of the weights zero is the same file to ONNX Runtime: no recipe pretends otherwise."""
    dense, sparse = conv_net(), conv_net()
    for tensor in sparse.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        array[np.abs(array) < np.median(np.abs(array))] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    assert sparse.ByteSize() == dense.ByteSize()
    assert inspect_model(sparse).flops == inspect_model(dense).flops
    assert not any("prun" in p.recipe or "spars" in p.recipe for p in inspect_model(sparse).recipes)


def test_a_threshold_of_another_domain_is_said_and_the_ranking_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracy that is low though the ranking is good is the data's doing: the report says so, and at which accuracy."""
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", (named("int8-dynamic-per-channel"),))
    source = write_pair_bundle(tmp_path / "in")
    model = onnx.load(str(source / "model.onnx"))
    limit = next(tensor for tensor in model.graph.initializer if tensor.name == "limit")
    limit.CopyFrom(numpy_helper.from_array(np.array([[150.0]], np.float16), "limit"))
    onnx.save(model, str(source / "model.onnx"))
    relist(source)
    with open_bundle(source) as bundle:
        result = run_job(bundle, parse_budget("size=-10%", bundle.spec.metric), tmp_path / "out")
    (note,) = [note for note in result.notes if "threshold does not suit these samples" in note]
    now, best = (float(text) for text in re.findall(r"accuracy ([0-9.]+), ([0-9.]+) at the best", note)[0])
    assert now < 0.9
    assert best == 1.0
    assert "AUC 1.000" in note


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_candidate_that_floods_its_log_is_ended_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("wavegate_server.compress.process.children._FLOOD_BYTES", 16 << 20)
    flood = f"import sys\nwhile True: sys.{stream}.write('W:onnxruntime: something, again' * 9999 + chr(10))"
    (tmp_path / "flood.py").write_text(flood, encoding="utf-8")
    with pytest.raises(UsageError, match="flooded its log"):
        run_child("flood", {}, timeout_s=120)
