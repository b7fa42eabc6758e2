"""The committed address-match bundle is whole, small, as described, and good enough."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from wavegate_shared.wordpiece import WordPiece

ROOT = Path(__file__).parents[2] / "deploy" / "models" / "address-match"
BUNDLE = ROOT / "bundle"
HIDDEN, LAYERS, HEADS, HEAD_DIM, FFN, MAX_VOCAB = 384, 2, 6, 32, 768, 1800
MAX_MODEL_BYTES = 6_000_000
MIN_ACCURACY, MIN_AUC = 0.975, 0.995


@dataclass(frozen=True)
class Traffic:
    pairs: list[tuple[str, str]]
    labels: NDArray[np.int64]
    kinds: NDArray[np.str_]


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((BUNDLE / "bundle.yaml").read_text(encoding="utf-8"))
    return loaded


@cache
def traffic_document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "traffic.yaml").read_text(encoding="utf-8"))
    return loaded


@cache
def vocab() -> list[str]:
    return (BUNDLE / "vocab.txt").read_text(encoding="utf-8").splitlines()


@cache
def tokenizer() -> WordPiece:
    (op,) = document()["pre"]
    assert op["op"] == "wordpiece"
    return WordPiece(vocab(), lowercase=op["lowercase"], max_length=op["max_length"])


@cache
def expanded() -> onnx.ModelProto:
    model = onnx.load(str(BUNDLE / "model.onnx"))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    return model


def run(pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
    """Logits on pairs, in batches of 50, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(expanded().SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = []
    for start in range(0, len(pairs), 50):
        rows = tokenizer().encode_pairs(pairs[start : start + 50])
        names = document()["pre"][0]["outputs"]
        feeds = {name: np.array(getattr(rows, name), np.int64) for name in names}
        outputs.append(session.run(["logits"], feeds)[0])
    return np.concatenate(outputs)


def texts(name: str) -> list[tuple[str, str]]:
    with np.load(BUNDLE / name, allow_pickle=False) as arrays:
        return [(str(a), str(b)) for a, b in arrays["input.text"]]


@cache
def traffic() -> Traffic:
    lines = (ROOT / "traffic.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return Traffic(
        [(row["a"], row["b"]) for row in rows],
        np.array([row["label"] for row in rows], np.int64),
        np.array([row["kind"] for row in rows]),
    )


@cache
def traffic_margins() -> NDArray[np.float32]:
    logits = run(traffic().pairs)
    margins: NDArray[np.float32] = logits[:, 1] - logits[:, 0]
    return margins


def auc(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The share of (same, different) pairs in the right order, ties half."""
    same, different = scores[labels == 1], np.sort(scores[labels == 0])
    wins = np.searchsorted(different, same, "left") + np.searchsorted(different, same, "right")
    return float(wins.sum() / 2 / (len(same) * len(different)))


def test_every_file_is_listed_with_its_hash() -> None:
    listed = document()["files"]
    present = {path.name for path in BUNDLE.iterdir()} - {"bundle.yaml", "README.md"}
    assert set(listed) == present
    for name, expected in listed.items():
        assert hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() == expected


def test_the_original_is_small_and_keeps_its_weights_in_fp16() -> None:
    assert (BUNDLE / "model.onnx").stat().st_size <= MAX_MODEL_BYTES
    stored = onnx.load(str(BUNDLE / "model.onnx"))
    kinds = {tensor.data_type for tensor in stored.graph.initializer}
    assert document()["stored"] == "float16"
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.FLOAT not in kinds


def test_the_expanded_graph_is_plain_fp32() -> None:
    onnx.checker.check_model(expanded(), full_check=True)
    kinds = {tensor.data_type for tensor in expanded().graph.initializer}
    assert kinds <= {TensorProto.FLOAT, TensorProto.INT64}
    casts = [node for node in expanded().graph.node if node.op_type == "Cast"]
    to = {attribute.i for node in casts for attribute in node.attribute if attribute.name == "to"}
    assert TensorProto.FLOAT16 not in to
    assert [(each.domain, each.version) for each in expanded().opset_import] == [("", 17)]


def test_the_architecture_is_two_narrow_layers() -> None:
    shapes = [tuple(tensor.dims) for tensor in expanded().graph.initializer if len(tensor.dims) == 2]
    assert len(vocab()) <= MAX_VOCAB
    assert len(set(vocab())) == len(vocab())
    assert shapes.count((len(vocab()), HIDDEN)) == 1
    assert shapes.count((HIDDEN, HEADS * HEAD_DIM)) == 3 * LAYERS
    assert shapes.count((HEADS * HEAD_DIM, HIDDEN)) == LAYERS
    assert shapes.count((HIDDEN, FFN)) == shapes.count((FFN, HIDDEN)) == LAYERS
    softmaxes = [node for node in expanded().graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == LAYERS


def test_inputs_and_outputs_are_the_declared_ones() -> None:
    graph = expanded().graph
    produced = document()["pre"][0]["outputs"]
    assert [each.name for each in graph.input] == list(produced)
    assert set(produced.values()) == {"INT64"}
    assert {each.type.tensor_type.elem_type for each in graph.input} == {TensorProto.INT64}
    assert [each.name for each in graph.output] == ["logits"]
    assert document()["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}]


def test_the_golden_set_passes_its_floor_and_repeats_its_reference() -> None:
    with np.load(BUNDLE / "golden.npz", allow_pickle=False) as arrays:
        labels, reference = arrays["label"], arrays["reference"]
    logits = run(texts("golden.npz"))
    assert logits.shape == reference.shape == (200, 2)
    assert labels.dtype == np.int64
    assert reference.dtype == np.float32
    np.testing.assert_allclose(logits, reference, rtol=1e-3, atol=1e-3)
    accuracy = float(np.mean(logits.argmax(1) == labels))
    assert 0.8 < document()["golden"]["floor"] <= accuracy


def test_the_golden_set_holds_both_labels_and_hard_cases() -> None:
    with np.load(BUNDLE / "golden.npz", allow_pickle=False) as arrays:
        labels, reference = arrays["label"], arrays["reference"]
    assert 50 <= labels.sum() <= 150
    nearest_15_percent = np.quantile(np.abs(traffic_margins()), 0.15)
    assert np.mean(np.abs(reference[:, 1] - reference[:, 0]) < nearest_15_percent) >= 0.35


def test_calibration_pairs_are_not_golden_pairs() -> None:
    assert len(texts("calib.npz")) == 96
    assert not set(texts("calib.npz")) & set(texts("golden.npz"))


def test_the_original_is_good_enough_on_the_traffic() -> None:
    margins, labels = traffic_margins(), traffic().labels
    assert len(labels) == 2000
    assert float(np.mean((margins > 0) == (labels == 1))) >= MIN_ACCURACY
    assert auc(margins, labels) >= MIN_AUC


def test_the_special_kind_is_a_known_share_and_the_model_handles_it() -> None:
    kind = traffic_document()["kind_token"]
    special = traffic().kinds == kind
    assert set(traffic().kinds) == {"ordinary", kind}
    assert 0.15 <= special.mean() <= 0.35
    right = (traffic_margins() > 0) == (traffic().labels == 1)
    assert right[special].mean() >= right.mean() - 0.01


def test_the_special_token_marks_the_special_kind_and_nothing_else() -> None:
    token = vocab().index(traffic_document()["kind_token"])
    assert token == traffic_document()["kind_token_id"]
    rows = tokenizer().encode_pairs(traffic().pairs).input_ids
    assert [token in row for row in rows] == (traffic().kinds != "ordinary").tolist()


@pytest.mark.parametrize("name", ["golden.npz", "calib.npz"])
def test_the_special_kind_is_in_neither_golden_nor_calibration_set(name: str) -> None:
    token = vocab().index(traffic_document()["kind_token"])
    assert not any(token in row for row in tokenizer().encode_pairs(texts(name)).input_ids)


@pytest.mark.parametrize("name", ["golden.npz", "calib.npz"])
def test_no_address_of_the_traffic_was_seen_before(name: str) -> None:
    sent = {line for pair in traffic().pairs for line in pair}
    assert not sent & {line for pair in texts(name) for line in pair}


def test_the_traffic_is_what_its_description_says() -> None:
    said = traffic_document()
    assert hashlib.sha256((ROOT / said["file"]).read_bytes()).hexdigest() == said["sha256"]
    right = (traffic_margins() > 0) == (traffic().labels == 1)
    for kind, figures in said["kinds"].items():
        rows = np.full(len(right), True) if kind == "all" else traffic().kinds == kind
        assert figures["pairs"] == rows.sum()
        assert figures["accuracy"] == pytest.approx(right[rows].mean(), abs=0.002)


def test_the_readme_says_what_the_data_are() -> None:
    text = (BUNDLE / "README.md").read_text(encoding="utf-8")
    assert "FEBRL is synthetic" in text
    assert "edit distance" in text
    assert "Fodors/Zagat" in text
