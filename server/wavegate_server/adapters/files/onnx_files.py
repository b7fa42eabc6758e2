"""Reading and rewriting ONNX files on the server: the one door to `onnx`. Loaded only in jobs and at import."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from wavegate_shared.errors import UsageError

__all__ = ["ALLOWED_DOMAINS", "ModelFacts", "prepare"]

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator domains a stock ONNX Runtime has built in."""
MIN_OPSET = 13
MAX_NODES = 100_000


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the file says of itself. Attributes: opset, domains in use, weights (number of parameters), node count."""

    opset: int
    domains: list[str]
    parameters: int
    nodes: int


def prepare(source: Path, target: Path, *, stored: str) -> ModelFacts:
    """Check the model at `source` and write the file devices will run to `target`.

    With `stored="float16"` the weights were kept as fp16 for size and are expanded to fp32; nodes are not touched, so
    expanding gives back exactly the graph that was exported.

    Raises:
        UsageError: `bundle_invalid`: not an ONNX file, external data, a foreign operator domain, too many nodes.
    """
    model = _load(source)
    if stored == "float16":
        _expand_float16(model)
    facts = _facts(model)
    _check(model, facts, source.name)
    onnx.save(model, str(target))
    return facts


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise UsageError("bundle_invalid", f"{path.name} is not an ONNX file: {error}") from error
    if not model.graph.node:
        raise UsageError("bundle_invalid", f"{path.name} holds no graph: truncated, or not an ONNX file")
    return model


def _expand_float16(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _facts(model: onnx.ModelProto) -> ModelFacts:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    nodes = list(_nodes(model.graph))
    return ModelFacts(
        opset=opsets.get("", opsets.get("ai.onnx", 0)),
        domains=sorted({node.domain for node in nodes}),
        parameters=sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer),
        nodes=len(nodes),
    )


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                found.extend(_nodes(inner) if inner.node else [])
    return found


def _check(model: onnx.ModelProto, facts: ModelFacts, name: str) -> None:
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise UsageError("bundle_invalid", f"{name} keeps weights in an external file; save it as one file")
    foreign = sorted(set(facts.domains) - ALLOWED_DOMAINS)
    if foreign:
        raise UsageError("bundle_invalid", f"{name} uses operators of {', '.join(foreign)}, which devices do not have")
    if facts.opset < MIN_OPSET:
        raise UsageError("bundle_invalid", f"{name} has opset {facts.opset}; {MIN_OPSET} or newer is needed")
    if facts.nodes > MAX_NODES:
        raise UsageError("bundle_invalid", f"{name} has {facts.nodes} nodes, at most {MAX_NODES}")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise UsageError("bundle_invalid", f"{name}: {str(error).splitlines()[0]}") from error
