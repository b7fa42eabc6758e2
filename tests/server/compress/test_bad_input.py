"""Bad input from the command line: a clear error with a stable code, the right exit code, and nothing written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.bundles import relist, rewrite_spec
from tests.support.graphs import conv_net, stripes, write_conv_bundle
from wavegate_server.cli.main import run
from wavegate_server.core.compress.recipes import named

pytestmark = pytest.mark.timeout(240)  # a job that gets as far as measuring starts some processes

Shown = tuple[int, dict[str, Any]]


@pytest.fixture(autouse=True)
def one_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", (named("int8-static-per-channel"),))
    monkeypatch.setenv("WAVEGATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_conv_bundle(tmp_path / "b", golden=60, calib=24)


def compress(bundle: Path, capsys: pytest.CaptureFixture[str], *more: str, budget: str = "size=-50%,drop=5pt") -> Shown:
    out = bundle.with_name("out")
    status = run(["compress", str(bundle), "--budget", budget, "--out", str(out), "--no-import", "--json", *more])
    shown = capsys.readouterr()
    assert not out.exists() or status == 0
    return status, json.loads(shown.out if status in (0, 3) else shown.err)


def npz(file: Path, **arrays: np.ndarray) -> None:
    np.savez(file, allow_pickle=False, **arrays)


def external(bundle: Path, location: str) -> None:
    """Weights of the model in another file, wherever its entry says."""
    onnx.save(conv_net(), str(bundle / "model.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(str(bundle / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    (bundle / "w.bin").rename(bundle.parent / "w.bin")


def nan_model() -> onnx.ModelProto:
    model = conv_net()
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    head.CopyFrom(numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias"))
    return model


def spoil_samples(golden: Path, how: str) -> None:
    images, labels = stripes(60, 2)
    arrays = {
        "other inputs": {"input.picture": images, "label": labels},
        "other shape": {"input.image": images[:, :, :8], "label": labels},
        "no inputs": {"label": labels},
        "labels of another length": {"input.image": images, "label": labels[:-1]},
        "no labels": {"input.image": images},
    }
    if how in arrays:
        npz(golden, **arrays[how])
    else:  # pickled objects
        np.savez(golden, **{"input.image": images, "label": np.array([{}] * 60)})  # type: ignore[arg-type]


def spoil_model(model: Path, how: str) -> None:
    if how == "no onnx":
        model.write_text("<html>not found</html>", encoding="utf-8")
    elif how == "truncated":
        model.write_bytes(model.read_bytes()[:2000])
    elif how == "nan":
        onnx.save(nan_model(), str(model))
    else:
        places = {"outside": "../w.bin", "absolute": str(model.parent.parent / "w.bin"), "missing": "gone.bin"}
        external(model.parent, places[how])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("other inputs", "the graph takes image"),
        ("other shape", "does not run"),
        ("no inputs", "needs input.* arrays"),
        ("labels of another length", "of one length"),
        ("no labels", "golden.npz has no labels"),
        ("pickled", "plain arrays"),
    ],
)
def test_samples_that_cannot_judge_are_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str], how: str, words: str
) -> None:
    spoil_samples(bundle / "golden.npz", how)
    relist(bundle)
    status, problem = compress(bundle, capsys)
    assert (status, problem["code"]) == (1, "bundle_invalid"), problem
    assert words in problem["detail"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no onnx", "not an ONNX file"),
        ("truncated", "ONNX"),
        ("nan", "not finite"),
        ("outside", "external"),
        ("absolute", "external"),
        ("missing", "external"),
    ],
)
def test_a_model_that_cannot_be_run_is_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str], how: str, words: str
) -> None:
    spoil_model(bundle / "model.onnx", how)
    relist(bundle)
    status, problem = compress(bundle, capsys)
    assert (status, problem["code"]) == (1, "bundle_invalid"), problem
    assert words in problem["detail"]


def test_a_metric_that_raises(bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(outputs, labels):\n    return 1 / 0\n", encoding="utf-8")
    status, problem = compress(bundle, capsys, "--metric", f"{tmp_path / 'mine.py'}:f")
    assert (status, problem["code"]) == (1, "metric_failed")
    assert "ZeroDivisionError" in problem["detail"]


@pytest.mark.parametrize(
    ("budget", "words"),
    [("size=small", "not understood"), ("error=+5%", "more is better in accuracy"), (",", "empty budget")],
)
def test_a_budget_that_means_nothing(bundle: Path, capsys: pytest.CaptureFixture[str], budget: str, words: str) -> None:
    assert run(["compress", str(bundle), "--budget", budget, "--out", str(bundle.with_name("out"))]) == 2
    assert words in " ".join(capsys.readouterr().err.replace("│", "").split())
    assert not bundle.with_name("out").exists()


def test_a_quantised_model_has_nothing_to_do(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = conv_net()
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.05, np.float32), "s"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "z"))
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(helper.make_node("QuantizeLinear", ["raw", "s", "z"], ["q"]))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"]))
    onnx.save(model, str(bundle / "model.onnx"))
    relist(bundle)
    status, result = compress(bundle, capsys)
    assert (status, result["chosen"], len(result["candidates"])) == (3, None, 1)
    assert "already quantised: nothing to do" in result["notes"]


def test_a_graph_inside_if_stays_as_it_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights outside are quantised, those in the branches are not, and the report says so."""
    model = conv_net()
    branches = []
    for name in ("then", "else"):
        tensor = numpy_helper.from_array(np.eye(4, dtype=np.float32), f"{name}_w")
        node = helper.make_node("MatMul", ["raw", f"{name}_w"], [f"{name}_y"], name=f"{name}_product")
        output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 4])
        branches.append(helper.make_graph([node], name, [], [output], [tensor]))
    model.graph.node[-1].output[0] = "raw"
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    model.graph.node.append(helper.make_node("ReduceMax", ["raw"], ["most"], keepdims=0))
    model.graph.node.append(helper.make_node("Greater", ["most", "zero"], ["which"]))
    model.graph.node.append(
        helper.make_node("If", ["which"], ["logits"], then_branch=branches[0], else_branch=branches[1])
    )
    onnx.save(model, str(bundle / "model.onnx"))
    relist(bundle)
    status, result = compress(bundle, capsys, budget="size=-20%,drop=20pt")
    assert status == 0, result
    assert any("inside If or Loop stay as they are" in note for note in result["notes"])


def test_too_few_samples_are_a_verdict_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_conv_bundle(tmp_path / "few", golden=8, calib=24)
    status, result = compress(bundle, capsys, budget="size=-20%,drop=0.5pt")
    assert status == 3
    assert any("not enough samples to prove it" in sentence for sentence in result["words"])


def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Shown:
    given = [str(tmp_path / "m.onnx"), "--inputs", str(tmp_path / "x.npz"), "--out", str(tmp_path / "out")]
    status = run(["model", "import", *given, "--json", *more])
    assert not (tmp_path / "out").exists()
    return status, json.loads(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("x", "label", "words"),
    [
        ({"picture": np.zeros((9, 1, 16, 16))}, None, "the graph takes"),
        ({"image": np.zeros((9, 1, 8, 16))}, None, "does not fit"),
        ({"image": np.zeros((9, 1, 16, 16))}, np.zeros(8), "differ in length"),
        ({"image": np.zeros((9, 1, 16, 16))}, np.full(9, np.nan), "finite"),
        ({"image": np.array(["a"] * 9)}, None, "does not fit"),
    ],
)
def test_a_bare_file_whose_samples_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], x: dict[str, np.ndarray], label: np.ndarray | None, words: str
) -> None:
    onnx.save(conv_net(batch="n"), str(tmp_path / "m.onnx"))
    npz(tmp_path / "x.npz", **x)
    more = []
    if label is not None:
        np.save(tmp_path / "y.npy", label)
        more = ["--labels", str(tmp_path / "y.npy")]
    status, problem = imported(tmp_path, capsys, *more)
    assert (status, problem["code"]) == (1, "bundle_invalid"), problem
    assert words in problem["detail"]


def test_a_bare_file_that_is_none_gives_nan_or_points_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    npz(tmp_path / "x.npz", image=stripes(9, 1)[0])
    (tmp_path / "m.onnx").write_bytes(b"\x00\x01nothing")
    assert imported(tmp_path, capsys)[1]["code"] == "bundle_invalid"
    onnx.save(nan_model(), str(tmp_path / "m.onnx"))
    assert "not finite" in imported(tmp_path, capsys)[1]["detail"]
    (tmp_path / "inner").mkdir()
    onnx.save(conv_net(), str(tmp_path / "inner" / "model.onnx"))
    external(tmp_path / "inner", "../w.bin")
    (tmp_path / "inner" / "model.onnx").rename(tmp_path / "m.onnx")
    assert "outside its folder" in imported(tmp_path, capsys)[1]["detail"]


@pytest.mark.parametrize("train", [{"image": np.zeros((4, 1, 16, 16))}, "same"])
def test_a_training_set_without_labels_or_of_judged_samples_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], train: Any
) -> None:
    onnx.save(conv_net(batch="n"), str(tmp_path / "m.onnx"))
    images, labels = stripes(20, 1)
    npz(tmp_path / "x.npz", image=images)
    npz(tmp_path / "t.npz", **({"image": images, "label": labels} if train == "same" else train))
    status, problem = imported(tmp_path, capsys, "--train", str(tmp_path / "t.npz"))
    assert (status, problem["code"]) == (1, "bundle_invalid")
    assert ("only samples that the model is judged on" if train == "same" else "needs labels") in problem["detail"]


def test_a_spec_that_names_samples_it_does_not_have(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite_spec(bundle, eval={"file": "absent.npz"})
    status, problem = compress(bundle, capsys)
    assert (status, problem["code"]) == (1, "bundle_invalid")
    assert "absent.npz" in problem["detail"]
