"""What an ONNX file is and what compression will try on it, found without loading its weights.

Compute is counted by shape inference with the dynamic dimensions set to stated sizes; where inference fails, it says so.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from wavegate_server.compress.onnx_graph.graphs import (
    MIN_OPSET,
    all_nodes,
    blocks,
    constants_of,
    load,
    name_nodes,
    opset,
    output_layer,
    strip_shapes,
    weight_of,
)
from wavegate_server.core.compress.recipes import Facts, Planned, plan

__all__ = ["Block", "Inspection", "Tensor", "inspect_file", "inspect_model"]

_QUANTISED = frozenset(
    {
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "MatMulInteger",
        "ConvInteger",
        "MatMulNBits",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
    }
)
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_KEPT_ELEMENTS = 1024
_WIDTH = 64
_BYTES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8, TensorProto.INT64: 8}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output. A dynamic dimension is its name, or -1 where it has none."""

    name: str
    dtype: str
    shape: list[int | str]


@dataclass(frozen=True, slots=True)
class Block:
    """Weighted nodes in a row. `macs` is None where shapes are not known."""

    nodes: list[str]
    parameters: int
    size_bytes: int
    macs: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file is.

    Attributes:
        family: cnn, detector, transformer, recurrent, mlp or other.
        head: regression (one number out), detection or classification, as far as shapes tell.
        macs: multiply-adds of one inference at `assumed` sizes, or None.
        subgraph_nodes, subgraph_parameters: inside If and Loop, which stay as they are; not among `parameters`.
        recipes: what will be tried, and why.
        skipped: what will not be tried, and why.
    """

    family: str
    head: str
    opset: int
    nodes: int
    parameters: int
    weight_bytes: int
    macs: int | None
    quantised: bool
    external: bool
    subgraph_nodes: int
    subgraph_parameters: int
    operators: dict[str, int]
    inputs: list[Tensor]
    outputs: list[Tensor]
    dynamic: list[str]
    assumed: dict[str, int]
    blocks: list[Block]
    output_layer: list[str]
    recipes: list[Planned]
    skipped: list[Planned]
    notes: list[str] = field(default_factory=list)

    @property
    def flops(self) -> int | None:
        """Floating-point operations of one inference: two for each multiply-add."""
        return None if self.macs is None else 2 * self.macs


def inspect_file(path: Path) -> Inspection:
    """Inspect the ONNX file at `path`; external weights are looked for but not read.

    Raises:
        UsageError: `bundle_invalid`: not an ONNX file, or external data outside its folder.
    """
    return inspect_model(load(path, weights=False))


def inspect_model(model: onnx.ModelProto, family: str = "") -> Inspection:
    """Inspect a loaded model. `family` overrides what the operators suggest; the model is not changed."""
    bare, sizes = _bare(model)
    name_nodes(bare)
    operators = Counter(node.op_type for node in all_nodes(bare.graph))
    inner = sum(operators.values()) - len(bare.graph.node)
    quantised = bool(_QUANTISED & operators.keys())
    assumed, shapes = _shapes(bare)
    macs = _macs(bare, shapes)
    outputs = [_tensor(value) for value in bare.graph.output]
    inputs = [_tensor(value) for value in bare.graph.input if value.name not in sizes]
    dynamic = sorted({f"{t.name}[{at}]" for t in inputs for at, side in enumerate(t.shape) if not _fixed(side)})
    version = opset(bare)
    fixed = all(_fixed(side) for t in inputs for side in t.shape[1:])
    kind = family or _family(bare, operators)
    held = _blocks(bare, sizes, macs)
    inside = _inner_parameters(bare.graph)
    facts = Facts(
        kind,
        quantised=quantised,
        fixed_shapes=fixed,
        operators=frozenset(operators),
        out_of_reach="" if any(block.parameters for block in held) else _out_of_reach(inside),
    )
    tried, skipped = plan(facts)
    return Inspection(
        family=kind,
        head=_head(kind, outputs, shapes),
        opset=version,
        nodes=sum(operators.values()),
        parameters=sum(math.prod(dims) for dims, _ in sizes.values()),
        weight_bytes=sum(count for _, count in sizes.values()),
        macs=sum(macs.values()) if macs else None,
        quantised=quantised,
        external=any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer),
        subgraph_nodes=inner,
        operators=dict(operators.most_common()),
        inputs=inputs,
        outputs=outputs,
        dynamic=dynamic,
        assumed=assumed,
        subgraph_parameters=inside,
        blocks=held,
        output_layer=output_layer(bare),
        recipes=tried,
        skipped=skipped,
        notes=_notes(version, quantised, (inner, inside), operators, macs),
    )


def _inner_parameters(graph: onnx.GraphProto) -> int:
    """Elements of the weights that lie in the graphs inside If and Loop, however deep."""
    graphs = [inner for node in graph.node for each in node.attribute for inner in (each.g, *each.graphs)]
    constants = [
        attribute.t
        for inner in graphs
        for node in inner.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    ]
    own = [tensor for inner in graphs for tensor in inner.initializer]
    elements: int = sum(math.prod(tensor.dims) for tensor in (*own, *constants))
    return elements + sum(map(_inner_parameters, graphs))


def _out_of_reach(inside: int) -> str:
    if inside:
        return f"its {inside:,} parameters lie inside If or Loop, which stay as they are"
    return "no node of the graph has a weight"


def _notes(
    version: int, quantised: bool, inside: tuple[int, int], operators: Counter[str], macs: dict[str, int]
) -> list[str]:
    inner, parameters = inside
    notes = []
    if version < MIN_OPSET:
        notes.append(f"opset {version} is upgraded first: per-channel int8 needs {MIN_OPSET}")
    if quantised:
        notes.append("already quantised: nothing to do")
    if inner:
        notes.append(
            f"{inner} nodes inside If or Loop stay as they are"
            + (f", with {parameters:,} parameters" if parameters else "")
        )
    if "NonMaxSuppression" in operators:
        notes.append("box selection stays float: one scale for boxes and scores would kill the scores")
    if not macs:
        notes.append("compute is not counted: shape inference does not get through this graph")
    return notes


def _bare(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, tuple[list[int], int]]]:
    """The model without its large weights, which become inputs of the same shape; and dims and bytes of each weight."""
    bare = onnx.ModelProto()
    bare.ir_version = max(model.ir_version, 4)
    bare.opset_import.extend(model.opset_import)
    graph = bare.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    known = {value.name for value in graph.input}
    stored = not any(value.type.tensor_type.elem_type == TensorProto.FLOAT16 for value in graph.input)
    sizes = {}
    for tensor in model.graph.initializer:
        dims = list(tensor.dims)
        sizes[tensor.name] = (dims, math.prod(dims) * _BYTES.get(tensor.data_type, 1))
        if math.prod(dims) <= _KEPT_ELEMENTS and tensor.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(_expanded(tensor) if stored else tensor)
        elif tensor.name not in known:
            half = stored and tensor.data_type == TensorProto.FLOAT16
            kind = TensorProto.FLOAT if half else tensor.data_type
            graph.input.append(helper.make_tensor_value_info(tensor.name, kind, dims))
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                dims = list(attribute.t.dims)
                if math.prod(dims) > _KEPT_ELEMENTS:
                    sizes[node.output[0]] = (dims, math.prod(dims) * _BYTES.get(attribute.t.data_type, 1))
    return bare, sizes


def _expanded(tensor: TensorProto) -> TensorProto:
    """A weight that is only stored as fp16, as the type the graph computes with."""
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name)


def _fixed(side: int | str) -> bool:
    return isinstance(side, int) and side > 0


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or -1 for d in kind.shape.dim]
    return Tensor(value.name, TensorProto.DataType.Name(kind.elem_type), shape)


def _shapes(bare: onnx.ModelProto) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Sizes set for dynamic dimensions (first 1, others 64), and every shape that inference then finds."""
    copy = onnx.ModelProto()
    copy.CopyFrom(bare)
    strip_shapes(copy)
    assumed: dict[str, int] = {}
    for value in copy.graph.input:
        for at, side in enumerate(value.type.tensor_type.shape.dim):
            if side.dim_value <= 0:
                size = 1 if at == 0 else _WIDTH
                assumed[f"{value.name}[{at}]"] = size
                side.ClearField("dim_param")
                side.dim_value = size
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        done = shape_inference.infer_shapes(copy, data_prop=True)
    except (RuntimeError, ValueError):
        return assumed, {}
    shapes = {tensor.name: list(tensor.dims) for tensor in done.graph.initializer}
    for value in [*done.graph.input, *done.graph.value_info, *done.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = [d.dim_value for d in dims]
    return assumed, shapes


def _macs(bare: onnx.ModelProto, shapes: dict[str, list[int]]) -> dict[str, int]:
    """Multiply-adds by node name, {} when the shape of a counted node is unknown."""
    counts: dict[str, int] = {}
    for node in bare.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul", *_RECURRENT):
            continue
        first, second, out = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
        if node.op_type in _RECURRENT and first and second:
            weights = math.prod(second) + math.prod(shapes.get(node.input[2], [0]))
            counts[node.name] = first[0] * weights
            continue
        if not first or not second or not out:
            return {}
        if node.op_type == "MatMul":
            counts[node.name] = math.prod(out) * first[-1]
        elif node.op_type == "Gemm":
            flipped = any(a.name == "transA" and a.i for a in node.attribute)
            counts[node.name] = math.prod(out) * first[0 if flipped else 1]
        elif node.op_type == "Conv":
            counts[node.name] = math.prod(out) * math.prod(second[1:])
        else:
            counts[node.name] = math.prod(first) * math.prod(second[1:])
    return counts


def _family(bare: onnx.ModelProto, operators: Counter[str]) -> str:
    convs = operators["Conv"] + operators["ConvInteger"] + operators["QLinearConv"]
    if _RECURRENT & operators.keys():
        return "recurrent"
    if _attention(bare) or operators["Attention"] or operators["MultiHeadAttention"]:
        return "transformer"
    tail = operators["Concat"] and operators["Resize"] + operators["Upsample"] and operators["Sigmoid"]
    if operators["NonMaxSuppression"] or (convs >= 4 and tail) or (convs >= 4 and len(bare.graph.output) >= 2):
        return "detector"
    if convs:
        return "cnn"
    return "mlp" if operators["Gemm"] + operators["MatMul"] + operators["Gather"] else "other"


def _attention(bare: onnx.ModelProto) -> bool:
    """A softmax whose result goes into a product of two activations."""
    constants = constants_of(bare.graph)
    fed = {value.name for value in bare.graph.input} | constants.keys()
    soft = {name for node in bare.graph.node if node.op_type == "Softmax" for name in node.output}
    carried = set(soft)
    for node in bare.graph.node:
        if node.op_type in ("Dropout", "Cast", "Mul", "Where", "Identity") and carried.intersection(node.input):
            carried.update(node.output)
    return any(
        node.op_type == "MatMul" and node.input[0] in carried and node.input[1] not in fed for node in bare.graph.node
    )


def _head(family: str, outputs: list[Tensor], shapes: dict[str, list[int]]) -> str:
    if family == "detector":
        return "detection"
    shape = shapes.get(outputs[0].name, []) if outputs else []
    if not shape:
        return "unknown"
    if math.prod(shape) == 1:
        return "regression"
    return "classification" if len(shape) <= 2 else "sequence"


def _blocks(bare: onnx.ModelProto, sizes: dict[str, tuple[list[int], int]], macs: dict[str, int]) -> list[Block]:
    # large weights are inputs here: give them back as empty tensors, so that "has a weight" can be asked
    constants = constants_of(bare.graph)
    stubs = {name: TensorProto(name=name, dims=dims) for name, (dims, _) in sizes.items()}
    holder = onnx.ModelProto()
    holder.graph.node.extend(bare.graph.node)
    holder.graph.initializer.extend(stubs.values())
    weights = {node.name: weight_of(node, {**constants, **stubs}) for node in bare.graph.node}
    found = []
    for names in blocks(holder):
        held = [weight for name in names if (weight := weights[name]) is not None]
        counted = [macs[name] for name in names if name in macs]
        found.append(
            Block(
                nodes=names,
                parameters=sum(math.prod(weight.dims) for weight in held),
                size_bytes=sum(sizes[weight.name][1] if weight.name in sizes else 0 for weight in held),
                macs=sum(counted) if macs else None,
            )
        )
    return found


def as_json(found: Inspection) -> dict[str, Any]:
    """The machine's form."""
    import msgspec

    answer: dict[str, Any] = msgspec.to_builtins(found)
    return {**answer, "flops": found.flops}
