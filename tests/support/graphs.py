"""Small real networks for the compressor's tests, made in milliseconds: weights are laid out or solved for, not trained.

The image net tells which way a noisy stripe runs: random convolutions and a least-squares head, right on nearly all samples.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wavegate_server.adapters.files.bundles import write_bundle

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
        wild: one channel between the convolutions is a thousand times larger than the others, which int8 then loses.
        batch: first dimension of the input.
    """
    rng = np.random.default_rng(5)
    first = rng.normal(size=(FILTERS, 1, 5, 5)).astype(np.float32) / 5
    second = rng.normal(size=(FILTERS * 2, FILTERS, 3, 3)).astype(np.float32) / 12
    stretch = np.ones((1, FILTERS, 1, 1), dtype=np.float32)
    images, labels = stripes(600, 1)
    features = _features(images, first, second)
    wanted = np.eye(CLASSES)[labels]
    if wild:
        stretch[0, 0] = 1000
        second[:, 0] /= 1000
    solved = np.linalg.lstsq(np.c_[features, np.ones(len(features))], wanted, rcond=None)[0]
    weight, bias = solved[:-1].astype(np.float32) * 5, solved[-1].astype(np.float32) * 5
    tensors = {"w1": first, "w2": second, "head": weight, "stretch": stretch, "bias": bias[None] if bias_row else bias}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="conv1", pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Mul", ["r1", "stretch"], ["s1"], name="stretched"),
        helper.make_node("Conv", ["s1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
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


def sensor_samples(samples: int, seed: int) -> tuple[Array, Array]:
    """Readings of a damped oscillation with noise, (n, 32) float32, and its damping: a small inversion task."""
    rng = np.random.default_rng(seed)
    damping = rng.uniform(0.5, 4.0, samples)
    time = np.linspace(0, 2, 32)
    signal = np.exp(-damping[:, None] * time) * np.cos(6 * time)
    return (signal + rng.normal(scale=0.02, size=signal.shape)).astype(np.float32), damping


def regression_net(width: int = 96) -> onnx.ModelProto:
    """One hidden layer of random features and a solved head: a number out."""
    rng = np.random.default_rng(8)
    hidden, shift = rng.normal(size=(32, width)).astype(np.float32) / 3, rng.normal(size=width).astype(np.float32) / 3
    x, y = sensor_samples(1500, 1)
    features = np.maximum(x @ hidden + shift, 0)
    gram = features.T @ features + 1e-1 * np.eye(width)
    head = np.linalg.solve(gram, features.T @ y).astype(np.float32)[:, None]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="hidden"),
        helper.make_node("Add", ["h", "b"], ["s"], name="shift"),
        helper.make_node("Relu", ["s"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "v"], ["y"], name="head"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])]
    return model_of(nodes, inputs, outputs, {"w": hidden, "b": shift, "v": head})


def write_bundle_of(directory: Path, model: onnx.ModelProto, x: Array, y: Array, calib: Array) -> Path:
    """A regression bundle: one input `x`, judged by its mean absolute error."""
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(directory / "model.onnx"))
    np.savez(directory / "golden.npz", allow_pickle=False, **{"input.x": x, "label": y})
    np.savez(directory / "calib.npz", allow_pickle=False, **{"input.x": calib})
    document: dict[str, object] = {
        "schema": 1,
        "model": "damping",
        "task": "regression",
        "model_file": "model.onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, x.shape[1]]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        "metric": {"name": "mean_absolute_error", "unit": "1/s", "direction": "down"},
        "golden": {"file": "golden.npz", "ceiling": 1.0},
        "calib": {"file": "calib.npz"},
    }
    write_bundle(directory, document, {name: directory / name for name in ("model.onnx", "golden.npz", "calib.npz")})
    return directory
