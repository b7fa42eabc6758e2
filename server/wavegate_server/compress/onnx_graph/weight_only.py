"""Weight-only forms: int8 stored and expanded when loaded, 4-bit products with int8 look-ups, fp16."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from wavegate_server.compress.onnx_graph import graphs

__all__ = ["to_float16", "to_int4", "to_int8_weights"]

_SMALL = 1024
_BLOCK = 32


def to_int8_weights(model: onnx.ModelProto, ops: Sequence[str], kept: Sequence[str] = ()) -> None:
    """Store the weights of nodes of the given types as int8 with a scale for each output channel, in place.

    ONNX Runtime expands them when it loads the file: the size of int8, the speed and nearly the results of fp32.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    axes: dict[str, int | None] = {}
    for node in graphs.weighted_nodes(model):
        weight = graphs.weight_of(node, constants)
        if weight is None or node.op_type not in ops or weight.data_type != onnx.TensorProto.FLOAT:
            continue
        axis = None if node.name in kept or int(np.prod(weight.dims)) < _SMALL else _axis(node, len(weight.dims))
        same = weight.name not in axes or axes[weight.name] == axis
        axes[weight.name] = axis if same else None
    added = []
    for name, axis in axes.items():
        if axis is not None:
            added.append(_store(model, constants[name], axis))
    nodes = [*added, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _axis(node: onnx.NodeProto, rank: int) -> int:
    """Axis of the weight that runs over output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gather":
        return 0
    flipped = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if flipped else rank - 1


def _store(model: onnx.ModelProto, tensor: onnx.TensorProto, axis: int) -> onnx.NodeProto:
    """Replace a weight by its int8 form; gives the node that expands it under the old name."""
    name = tensor.name
    values: NDArray[np.float32] = numpy_helper.to_array(tensor)
    others = tuple(at for at in range(values.ndim) if at != axis)
    scale = np.maximum(np.abs(values).max(axis=others) / 127.0, 1e-12).astype(np.float32)
    shape = [-1 if at == axis else 1 for at in range(values.ndim)]
    stored = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
    tensor.CopyFrom(numpy_helper.from_array(stored, f"{name}_int8"))
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    return helper.make_node(
        "DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], name=f"{name}_expand", axis=axis
    )


def to_float16(model: onnx.ModelProto, target: Path) -> None:
    """Write the model with fp16 weights and arithmetic; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graphs.save(convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=False), target)


def to_int4(model: onnx.ModelProto, target: Path, kept: Sequence[str]) -> None:
    """Write the model with 4-bit MatMul weights (blocks of 32) and int8 look-up tables."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    made: Any = MatMulNBitsQuantizer(
        model, block_size=_BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=list(kept)
    )
    made.process()
    with tempfile.TemporaryDirectory(prefix="wavegate-int4-") as scratch:
        between = Path(scratch) / "int4.onnx"
        graphs.save(made.model.model, between)
        quantize_dynamic(
            model_input=between,
            model_output=target,
            op_types_to_quantize=["Gather"],
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
