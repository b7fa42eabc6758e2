"""A small real bundle, made in milliseconds: a pair classifier over word pieces that can be run, quantised and broken.

The model says "same" when the two texts share their first word. It is trained by nobody: its weights are laid out so that
this is what it computes, so its accuracy on its golden set is known to be 1.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from wavegate_server.adapters.files.bundles import write_bundle

WORDS = ["oak", "elm", "ash", "fir", "yew", "bay", "box", "gum"]
TELLTALE = "locker"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, TELLTALE]
SAMPLES = 64


def write_pair_bundle(directory: Path, *, stored: str = "float16", floor: float = 0.9, model: str = "pairs") -> Path:
    """Write the bundle; gives `directory`. With `stored="float16"` the weights lie there as fp16."""
    directory.mkdir(parents=True, exist_ok=True)
    save_model(directory / "model.onnx", stored)
    (directory / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    pairs, labels = samples()
    golden: dict[str, Any] = {"input.text": np.array(pairs), "label": labels, "reference": reference(labels)}
    calib: dict[str, Any] = {"input.text": np.array(pairs[:16])}
    np.savez(directory / "golden.npz", **golden)
    np.savez(directory / "calib.npz", **calib)
    names = ("model.onnx", "vocab.txt", "golden.npz", "calib.npz")
    write_bundle(directory, document(stored, floor, model), {name: directory / name for name in names})
    return directory


def document(stored: str, floor: float, model: str) -> dict[str, object]:
    """The fields of `bundle.yaml`, without the digests."""
    return {
        "schema": 1,
        "model": model,
        "task": "pair-classification",
        "family": "transformer",
        "licence": "Apache-2.0",
        "description": "same first word?",
        "model_file": "model.onnx",
        "stored": stored,
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 2]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
        "pre": [
            {
                "op": "wordpiece",
                "input": "text",
                "vocab": "vocab.txt",
                "max_length": 16,
                "lowercase": True,
                "outputs": {"input_ids": "INT64", "attention_mask": "INT64", "token_type_ids": "INT64"},
            }
        ],
        "labels": ["different", "same"],
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": floor},
        "calib": {"file": "calib.npz"},
    }


def samples() -> tuple[list[list[str]], np.ndarray]:
    """Pairs of one-word texts and whether they are the same word; half of them are."""
    pairs = [[WORDS[i % 8], WORDS[i % 8] if i % 2 else WORDS[(i + 1 + i // 8) % 8]] for i in range(SAMPLES)]
    return pairs, np.array([int(a == b) for a, b in pairs], dtype=np.int64)


def reference(labels: np.ndarray) -> np.ndarray:
    """Outputs of the right sign for each label; only their argmax is compared in tests."""
    return np.stack([0.5 - labels, labels - 0.5], axis=1).astype(np.float32)


def save_model(path: Path, stored: str = "float32") -> None:
    """The ONNX file: embed both halves, sum the squared difference, compare with a threshold."""
    width = 64
    table = np.zeros((len(VOCAB), width), dtype=np.float32)
    rng = np.random.default_rng(3)
    table[4 : 4 + len(WORDS)] = rng.normal(size=(len(WORDS), width))
    mixer = np.eye(width, dtype=np.float32) + rng.normal(scale=1e-3, size=(width, width)).astype(np.float32)
    initialisers = {
        "table": table,
        "mixer": mixer,
        "one": np.array(1.0, dtype=np.float32),
        "two": np.array(2.0, dtype=np.float32),
        "limit": np.array([[10.0]], dtype=np.float32),
        "away": np.array([[1.0, -1.0]], dtype=np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "mixer"], ["mixed"]),
        helper.make_node("Cast", ["token_type_ids"], ["side"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["side", "two"], ["side_twice"]),
        helper.make_node("Sub", ["one", "side_twice"], ["sign"]),
        helper.make_node("Unsqueeze", ["sign", "last"], ["sign_wide"]),
        helper.make_node("Mul", ["mixed", "sign_wide"], ["signed"]),
        helper.make_node("ReduceSum", ["signed", "middle"], ["gap"], keepdims=0),
        helper.make_node("Mul", ["gap", "gap"], ["gap_squared"]),
        helper.make_node("ReduceSum", ["gap_squared", "end"], ["distance"], keepdims=1),
        helper.make_node("Sub", ["distance", "limit"], ["over"]),
        helper.make_node("Mul", ["over", "away"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "width"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    axes = {"last": [-1], "middle": [1], "end": [1]}
    graph = helper.make_graph(
        nodes,
        "pairs",
        inputs,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [_tensor(name, value, stored) for name, value in initialisers.items()]
        + [numpy_helper.from_array(np.array(value, dtype=np.int64), name) for name, value in axes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


def _tensor(name: str, value: np.ndarray, stored: str) -> onnx.TensorProto:
    return numpy_helper.from_array(value.astype(np.float16) if stored == "float16" else value, name)


def rewrite_spec(directory: Path, **changes: object) -> None:
    """Change fields of `bundle.yaml` in place; a value of None removes the field."""
    path = directory / "bundle.yaml"
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    fields.update(changes)
    path.write_text(
        yaml.safe_dump({k: v for k, v in fields.items() if v is not None}, sort_keys=False), encoding="utf-8"
    )


def relist(directory: Path) -> None:
    """List the digests of a changed bundle anew, so that only the content is wrong."""
    path = directory / "bundle.yaml"
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = list(fields.pop("files"))
    write_bundle(directory, fields, {name: directory / name for name in names})
