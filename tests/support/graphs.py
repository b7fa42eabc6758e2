"""Small real networks for the compressor's tests, made in milliseconds: weights are laid out or solved for, not trained.

The image net tells which way a noisy stripe runs: random convolutions and a least-squares head, right on nearly all samples.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wavegate_server.adapters.bundles import write_bundle

SIDE = 16
CLASSES = 4
FILTERS = 16

Array = NDArray[Any]


def stripes(samples: int, seed: int) -> tuple[Array, Array]:
    """Noisy stripes in four directions: (n, 1, 16, 16) float32 and their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, samples)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    directions = [rows, columns, rows + columns, rows - columns]
    phase = rng.uniform(0, 2 * np.pi, samples)
    images = np.stack([np.sin(directions[label] * 1.2 + at) for label, at in zip(labels, phase, strict=True)])
    noisy = images + rng.normal(scale=0.6, size=images.shape)
    return noisy[:, None].astype(np.float32), labels.astype(np.int64)


def conv_net(*, opset: int = 17, bias_row: bool = False, wild: bool = False, batch: int | str = 1) -> onnx.ModelProto:
    """Two convolutions, pooling, a solved head.

    Args:
        opset: of the file.
        bias_row: a Gemm bias of shape [1, N], which the quantiser's per-channel form does not take.
        wild: one channel of the first convolution a thousand times larger: per-tensor int8 loses all others.
        batch: first dimension of the input.
    """
    rng = np.random.default_rng(5)
    first = rng.normal(size=(FILTERS, 1, 5, 5)).astype(np.float32) / 5
    second = rng.normal(size=(FILTERS * 2, FILTERS, 3, 3)).astype(np.float32) / 12
    if wild:
        first[0] *= 1000
        second[:, 0] /= 1000
    images, labels = stripes(600, 1)
    features = _features(images, first, second)
    wanted = np.eye(CLASSES)[labels]
    solved = np.linalg.lstsq(np.c_[features, np.ones(len(features))], wanted, rcond=None)[0]
    weight, bias = solved[:-1].astype(np.float32) * 5, solved[-1].astype(np.float32) * 5
    tensors = {"w1": first, "w2": second, "head": weight, "bias": bias[None] if bias_row else bias}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="conv1", pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "head", "bias"], ["logits"], name="gemm"),
    ]
    return model_of(
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        tensors,
        opset=opset,
    )


def _features(images: Array, first: Array, second: Array) -> Array:
    one = np.maximum(_convolve(images, first, 2), 0)
    features: Array = np.maximum(_convolve(one, second, 1), 0).mean(axis=(2, 3))
    return features


def _convolve(images: Array, weights: Array, pad: int) -> Array:
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    views = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], axis=(2, 3))
    made: Array = np.einsum("nchwij,ocij->nohw", views, weights, optimize=True)
    return made


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: dict[str, Array],
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of nodes and named arrays."""
    held = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write_conv_bundle(
    directory: Path, *, model: onnx.ModelProto | None = None, golden: int = 200, calib: int = 64, **fields: object
) -> Path:
    """A bundle of `conv_net` with stripes as samples; `fields` override those of bundle.yaml."""
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model or conv_net(), str(directory / "model.onnx"))
    images, labels = stripes(golden, 2)
    np.savez(directory / "golden.npz", allow_pickle=False, **{"input.image": images, "label": labels})
    np.savez(directory / "calib.npz", allow_pickle=False, **{"input.image": stripes(calib, 3)[0]})
    document: dict[str, object] = {
        "schema": 1,
        "model": "stripes",
        "task": "image-classification",
        "family": "cnn",
        "licence": "Apache-2.0",
        "model_file": "model.onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, SIDE, SIDE]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}],
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": 0.8},
        "calib": {"file": "calib.npz"},
    }
    names = ("model.onnx", "golden.npz", "calib.npz")
    write_bundle(directory, {**document, **fields}, {name: directory / name for name in names})
    return directory
