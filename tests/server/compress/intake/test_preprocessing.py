"""`--pre`: declared operations make the graph's inputs of what clients send; what does not fit is refused by name."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.graphs import conv_net, model_of, stripes
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.intake.onnx_file import Bare, Given, make_bundle
from wavegate_server.compress.intake.preprocessing import read_declared
from wavegate_server.compress.job import Options, run_job
from wavegate_server.core.compress.budget import parse_budget
from wavegate_shared.errors import UsageError

PRE = [
    {"op": "scale", "input": "image", "divisor": 255},
    {"op": "normalise", "input": "image", "mean": [0.5], "std": [0.125]},
    {"op": "transpose", "input": "image"},
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The conv net with its images as a camera gives them: uint8, height, width, channels."""
    onnx.save(conv_net(batch="n"), str(tmp_path / "net.onnx"))
    images, labels = stripes(160, 11)
    raw = np.clip((images / 8 + 0.5) * 255, 0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "x.npz", image=raw, label=labels)
    (tmp_path / "pre.json").write_text(json.dumps(PRE))
    return tmp_path


def make(files: Path, pre: str = "pre.json", inputs: str = "x.npz") -> Bare:
    return make_bundle(files / "net.onnx", Given(files / inputs, pre=files / pre), files / "out")


def test_the_bundle_takes_what_clients_send_and_compresses(files: Path) -> None:
    made = make(files)
    assert made.value > 0.9
    with open_bundle(files / "out") as bundle:
        assert bundle.spec.pre == PRE
        assert (bundle.spec.inputs[0].datatype, bundle.spec.inputs[0].shape) == ("UINT8", [-1, 16, 16, 1])
        budget = parse_budget("size=-40%", bundle.spec.metric)
        result = run_job(bundle, budget, files / "small", options=Options(time_s=120))
    assert result.chosen is not None
    with open_bundle(files / "small") as bundle:
        assert bundle.spec.pre == PRE


def test_the_train_set_goes_through_them_too(files: Path) -> None:
    with np.load(files / "x.npz") as archive:
        image, label = archive["image"], archive["label"]
    np.savez(
        files / "train.npz", image=np.concatenate([image[:4], 255 - image]), label=np.concatenate([label[:4], label])
    )
    given = Given(files / "x.npz", pre=files / "pre.json", train=files / "train.npz")
    made = make_bundle(files / "net.onnx", given, files / "out")
    assert made.samples["train"] == 160
    assert any("4 training samples left out" in note for note in made.notes)


def test_a_vocabulary_is_taken_along(tmp_path: Path) -> None:
    ids, mask, out = (
        helper.make_tensor_value_info(name, kind, ["n", size])
        for name, kind, size in (
            ("input_ids", TensorProto.INT64, "w"),
            ("attention_mask", TensorProto.INT64, "w"),
            ("y", TensorProto.FLOAT, 2),
        )
    )
    table = np.random.default_rng(1).normal(size=(8, 2)).astype(np.float32)
    axes = np.array([1], np.int64)
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["m3"]),
        helper.make_node("Gather", ["table", "input_ids"], ["e"]),
        helper.make_node("Mul", ["e", "m3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axes"], ["y"], keepdims=0),
    ]
    tensors: dict[str, np.ndarray] = {"table": table, "axes": axes, "last": np.array([2], np.int64)}
    onnx.save(model_of(nodes, [ids, mask], [out], tensors), str(tmp_path / "net.onnx"))
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]))
    wanted = {"input_ids": "INT64", "attention_mask": "INT64"}
    step = {"op": "wordpiece", "input": "text", "vocab": "vocab.txt", "max_length": 16, "outputs": wanted}
    (tmp_path / "pre.yaml").write_text(f"pre:\n- {json.dumps(step)}\n")
    words = np.array([" ".join(np.random.default_rng(at).choice(list("abcd"), 1 + at % 5)) for at in range(80)])
    np.savez(tmp_path / "x.npz", text=words)
    make_bundle(tmp_path / "net.onnx", Given(tmp_path / "x.npz", pre=tmp_path / "pre.yaml"), tmp_path / "out")
    with open_bundle(tmp_path / "out") as bundle:
        assert bundle.spec.inputs[0].datatype == "BYTES"
        assert "vocab.txt" in bundle.spec.files
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(UsageError, match=r"names vocab\.txt, which is not beside it"):
        read_declared(tmp_path / "pre.yaml")


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("{", "no YAML or JSON"),
        ("[]", "write a list of operations"),
        ('{"post": []}', "write a list of operations"),
        ('[{"op": "blur", "input": "image"}]', "'blur' is not known"),
        ('[{"op": "scale", "input": "image"}]', "lacks divisor"),
        ('[{"op": "scale", "input": "picture", "divisor": 255}]', "take ['image', 'picture'], x.npz has ['image']"),
        ('[{"op": "scale", "input": "image", "output": "scaled", "divisor": 255}]', "no operation makes"),
        ('[{"op": "scale", "input": "image", "divisor": 255}]', "does not fit FLOAT"),
        ('[{"op": "resize", "input": "image", "size": [8, 8]}, {"op": "transpose", "input": "image"}]', "does not fit"),
        ('[{"op": "wordpiece", "input": "t", "vocab": "../v", "max_length": 9, "outputs": {"input_ids": "INT64"}}]', "plain"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_written(files: Path, pre: str, words: str) -> None:
    (files / "bad.json").write_text(pre)
    with pytest.raises(UsageError) as caught:
        make(files, "bad.json")
    assert words in caught.value.detail
    assert caught.value.code == "bundle_invalid"
    assert not (files / "out").exists()


def test_inputs_that_the_operations_cannot_take_are_refused(files: Path) -> None:
    np.savez(files / "text.npz", image=np.array(["not an image"] * 80))
    with pytest.raises(UsageError, match=r"text\.npz, pre-processing"):
        make(files, inputs="text.npz")


def test_a_file_that_is_no_text_is_refused(files: Path) -> None:
    (files / "bad.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="no YAML or JSON"):
        read_declared(files / "bad.json")


def test_the_example_of_the_docs_makes_what_an_image_net_takes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[4] / "docs" / "compression.md").read_text(encoding="utf-8")
    (tmp_path / "pre.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    image = np.random.default_rng(1).integers(0, 256, (1, 300, 400, 3), dtype=np.uint8)
    made = read_declared(tmp_path / "pre.yaml").first({"image": image}, "x.npz")
    assert (made["image"].dtype, made["image"].shape) == (np.float32, (1, 3, 224, 224))
