"""Bias correction: what rounding the weights shifts an output channel by on average is taken off its bias.

Behind a ReLU inputs are never negative, so rounding errors do not even out: a channel's error has a mean of its own, and layer
adds to layer. The mean is that of W_int8 - W on the float graph's inputs, layer by layer, so nothing is counted twice. It costs a
pass over some calibration samples; size and speed stay.

Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2, with the
calibration inputs in place of the batch norms' statistics.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from wavegate_server.compress.measure.samples import Feed
from wavegate_server.compress.onnx_graph import graphs

__all__ = ["correct"]

_SAMPLES = 32
_MOST_BYTES = 1 << 29
"""Larger graphs are left as they are: the pass holds the weights twice."""
_OPS = ("Conv", "Gemm")
Float = NDArray[np.float64]


def correct(source: Path, quantised: Path, feeds: Sequence[Feed]) -> int:
    """Correct the biases of `quantised` in place; gives how many layers were.

    Args:
        source: the float graph that it was made of, with the same node names.
        quantised: a QDQ graph.
        feeds: calibration samples, inputs of the graph only.
    """
    if not feeds or source.stat().st_size > _MOST_BYTES:
        return 0
    model, result = graphs.load(source), graphs.load(quantised)
    biases = _biases(model, result)
    means = _means(model, result, list(biases), feeds[:_SAMPLES])
    done = 0
    for name, bias in biases.items():
        done += bias.shift(means[name]) if name in means else 0
    if done:
        graphs.save(result, quantised)
    return done


class _Bias:
    """A bias in the quantised graph, int32 with a scale or float as it was."""

    def __init__(self, tensor: onnx.TensorProto, scale: Float) -> None:
        self._tensor, self._scale = tensor, scale

    def shift(self, mean: Float) -> bool:
        """Take `mean`, (channels,), off; whether that could be done."""
        old = numpy_helper.to_array(self._tensor)
        if old.size != mean.size or not np.isfinite(mean).all():
            return False
        steps = mean / np.broadcast_to(self._scale, mean.shape)
        whole = np.issubdtype(old.dtype, np.integer)
        new = (old.reshape(-1) - (np.round(steps) if whole else steps)).reshape(old.shape)
        self._tensor.CopyFrom(numpy_helper.from_array(new.astype(old.dtype), self._tensor.name))
        return True


def _biases(model: onnx.ModelProto, result: onnx.ModelProto) -> dict[str, _Bias]:
    """Biases that belong to one layer, by the layer's name."""
    constants, expanded = graphs.constants_of(result.graph), _expanded(result.graph)
    uses = Counter(name for node in result.graph.node for name in node.input)
    names = {node.name for node in model.graph.node if _has_bias(node)}
    found = {}
    for node in result.graph.node:
        if node.name not in names or uses[node.input[2]] != 1:
            continue
        scaled = expanded.get(node.input[2])
        if scaled is None and node.input[2] in constants:
            found[node.name] = _Bias(constants[node.input[2]], np.ones(1))
        elif scaled is not None and uses[scaled.input[0]] == 1 and {*scaled.input[:2]} <= set(constants):
            scale = numpy_helper.to_array(constants[scaled.input[1]]).astype(np.float64).reshape(-1)
            found[node.name] = _Bias(constants[scaled.input[0]], scale)
    return found


def _has_bias(node: onnx.NodeProto) -> bool:
    plain = all(attribute.f == 1 for attribute in node.attribute if attribute.name == "beta")
    return node.op_type in _OPS and len(node.input) > 2 and bool(node.input[2]) and plain


def _expanded(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """DequantizeLinear nodes by what they give."""
    return {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}


def _means(
    model: onnx.ModelProto, result: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]
) -> dict[str, Float]:
    """What the weights' rounding adds to each channel on average, (channels,) by layer; runs the float graph."""
    constants, wanted = graphs.constants_of(model.graph), set(names)
    rounded = {node.name: node for node in result.graph.node if node.name in wanted}
    outputs: dict[str, str] = {}
    for node in list(model.graph.node):
        weight = constants.get(node.input[1]) if node.name in rounded else None
        values = None if weight is None else _rounded(result.graph, rounded[node.name].input[1])
        if weight is None or values is None:
            continue
        error = (values - numpy_helper.to_array(weight).astype(np.float64)).astype(np.float32)
        made = f"{node.name}_rounding"
        model.graph.initializer.append(numpy_helper.from_array(error, f"{made}_weight"))
        layer = helper.make_node(node.op_type, [node.input[0], f"{made}_weight"], [f"{made}_full"], name=made)
        layer.attribute.extend(node.attribute)
        model.graph.node.append(layer)
        if node.op_type == "Conv":
            model.graph.node.append(helper.make_node("GlobalAveragePool", layer.output, [f"{made}_mean"]))
        outputs[node.name] = f"{made}_mean" if node.op_type == "Conv" else f"{made}_full"
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs.values())
    return _averaged(model, outputs, feeds)


def _rounded(graph: onnx.GraphProto, name: str) -> Float | None:
    """The values an int8 weight stands for; None where it is none."""
    node, constants = _expanded(graph).get(name), graphs.constants_of(graph)
    if node is None or any(part not in constants for part in node.input if part):
        return None
    whole, scale, *zero = (numpy_helper.to_array(constants[part]).astype(np.float64) for part in node.input if part)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [-1 if at == axis % whole.ndim else 1 for at in range(whole.ndim)] if scale.size > 1 else [1] * whole.ndim
    values: Float = (whole - (zero[0].reshape(shape) if zero else 0)) * scale.reshape(shape)
    return values


def _averaged(model: onnx.ModelProto, outputs: dict[str, str], feeds: Sequence[Feed]) -> dict[str, Float]:
    if not outputs:
        return {}
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums: dict[str, Float] = {}
    for feed in feeds:
        for name, array in zip(outputs, session.run(list(outputs.values()), feed), strict=True):
            mean = np.asarray(array, dtype=np.float64).reshape(len(array), -1).mean(axis=0)
            sums[name] = sums[name] + mean if name in sums else mean
    return {name: total / len(feeds) for name, total in sums.items()}
