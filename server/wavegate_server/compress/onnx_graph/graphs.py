"""Reading, mending and writing ONNX graphs for the compressor: external data, opset, stale shapes, node names.

Weights beside the file are taken along only from the file's own folder. Inspection never loads them.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper, version_converter

from wavegate_shared.errors import UsageError

__all__ = [
    "MIN_OPSET",
    "TARGET_OPSET",
    "WEIGHTED",
    "all_nodes",
    "blocks",
    "constants_of",
    "expand_float16",
    "load",
    "name_nodes",
    "opset",
    "output_layer",
    "save",
    "segments",
    "strip_shapes",
    "upgrade",
    "weight_of",
    "weight_shares",
    "weighted_nodes",
]

MIN_OPSET = 13
"""Below it per-channel QuantizeLinear has no axis, and the quantised graph is invalid."""
TARGET_OPSET = 17
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "LSTM", "GRU", "RNN"})
_SINGLE_FILE_BYTES = 2_000_000_000
_MAX_BLOCKS = 16


def load(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """The model at `path`, with external weights unless `weights` is False.

    Raises:
        UsageError: `bundle_invalid`: not an ONNX file, or external data that is missing or outside the file's folder.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise UsageError("bundle_invalid", f"{path.name} is not an ONNX file: {error}") from error
    if not model.graph.node:
        raise UsageError("bundle_invalid", f"{path.name} holds no graph: truncated, or not an ONNX file")
    _check_external(model, path)
    if weights:
        try:
            external_data_helper.load_external_data_for_model(model, str(path.parent))
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            raise UsageError("bundle_invalid", f"{path.name}: external data: {str(error)[:200]}") from error
    return model


def _check_external(model: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        file = folder / place
        if not place or Path(place).is_absolute() or not file.resolve().is_relative_to(folder) or file.is_symlink():
            raise UsageError("bundle_invalid", f"{path.name} points to external data outside its folder: {place!r}")
        if not file.is_file():
            raise UsageError("bundle_invalid", f"{path.name} keeps weights in {place}, which is not there")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in [attribute.g, *attribute.graphs]:
                yield from _tensors(inner)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` as one file; weights of 2 GB or more go into `<name>.data` beside it."""
    beside = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _SINGLE_FILE_BYTES
    if beside:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def upgrade(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 13 or newer; unchanged where it already is.

    Raises:
        UsageError: `bundle_invalid` when the converter cannot.
    """
    if opset(model) >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, TARGET_OPSET)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        detail = str(error).strip().splitlines()[0][:200]
        raise UsageError(
            "bundle_invalid", f"opset {opset(model)} cannot be upgraded: {detail}; export it again with opset 17"
        ) from error


def strip_shapes(model: onnx.ModelProto) -> None:
    """Drop `value_info`: exporters leave shapes that contradict inference, which stops the quantiser."""
    del model.graph.value_info[:]


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node of the main graph a name of its own; plans and exclusions go by name."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
        seen.add(node.name)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of the graphs inside its If and Loop nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from all_nodes(inner)


def weight_of(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    """The weight a node multiplies with or looks up in, None where it has none."""
    if node.op_type not in WEIGHTED:
        return None
    places = (0,) if node.op_type == "Gather" else (1,)
    found = [constants[node.input[at]] for at in places if at < len(node.input) and node.input[at] in constants]
    return found[0] if found and len(found[0].dims) > 1 else None


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initialisers and Constant outputs by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
    return found


def weighted_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes of the main graph that hold weights, in the graph's order."""
    constants = constants_of(model.graph)
    return [node for node in model.graph.node if weight_of(node, constants) is not None]


def weight_shares(model: onnx.ModelProto) -> dict[str, float]:
    """The share of all weights that each weighted node holds, by its name."""
    constants = constants_of(model.graph)
    sizes = {n.name: math.prod(w.dims) for n in model.graph.node if (w := weight_of(n, constants)) is not None}
    return {name: size / max(sum(sizes.values()), 1) for name, size in sizes.items()}


def output_layer(model: onnx.ModelProto) -> list[str]:
    """Names of the weighted nodes with no weighted node behind them: what makes the outputs."""
    weighted = {node.name for node in weighted_nodes(model)}
    behind = {value.name: False for value in model.graph.output}
    last: list[str] = []
    for node in reversed(model.graph.node):
        follows = [behind[name] for name in node.output if name in behind]
        if not follows:
            continue
        is_weighted = node.name in weighted
        if is_weighted and not any(follows):
            last.append(node.name)
        for name in node.input:
            behind[name] = behind.get(name, False) or any(follows) or is_weighted
    return last[::-1]


def blocks(model: onnx.ModelProto, *, most: int = _MAX_BLOCKS) -> list[list[str]]:
    """Weighted nodes grouped for the sensitivity scan: the first two alone, the others in order, at most `most` groups."""
    names = [node.name for node in weighted_nodes(model)]
    first, rest = names[:2], names[2:]
    left = most - len(first)
    size = max(1, -(-len(rest) // left))
    return [[name] for name in first] + [rest[at : at + size] for at in range(0, len(rest), size)]


def segments(model: onnx.ModelProto) -> list[list[str]]:
    """`blocks` with the unweighted nodes before each weighted one: left float together, no int8 stays in front of a block."""
    ends = {name: number for number, names in enumerate(blocks(model)) for name in names[-1:]}
    found: list[list[str]] = [[]]
    for node in model.graph.node:
        found[-1].append(node.name)
        if node.name in ends:
            found.append([])
    return [names for names in found if names]


def expand_float16(model: onnx.ModelProto) -> None:
    """Weights that were stored as fp16 become fp32; nodes are not touched."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
