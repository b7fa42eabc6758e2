"""The student as an ONNX graph: export, fp16 storage and its inverse, inference.

Storage: `to_stored` rewrites each float32 initialiser as a float16 initialiser of
the same name and touches nothing else. The stored file is a container, not a
runnable graph; `expand` turns float16 initialisers back into float32 ones, and
the result is a plain fp32 graph. `expand(to_stored(expand(m)))` equals
`expand(m)`: values are rounded once, when they are stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from address_match_recipe.bert import CrossEncoder
from address_match_recipe.pairs import Pair
from wavegate_shared.wordpiece import WordPiece

__all__ = ["INPUTS", "OPSET", "expand", "export", "run", "to_stored"]

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
RUN_BATCH = 64


def export(model: CrossEncoder) -> onnx.ModelProto:
    """The model as a checked fp32 graph: three int64 inputs, `logits` (n, 2).

    Args:
        model: Put in eval mode; batch and width stay dynamic.
    """
    model.eval()
    sample = torch.ones((2, 16), dtype=torch.int64)
    axes = {name: {0: "batch", 1: "width"} for name in INPUTS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        torch.onnx.export(
            model,
            (sample, sample, sample),
            path,
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,  # the tracing exporter: smaller graphs, attention that fuses
        )
        graph = onnx.load(str(path))
    graph.producer_name, graph.producer_version = "wavegate-address-match", "1"
    onnx.checker.check_model(graph, full_check=True)
    return graph


def to_stored(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every float32 initialiser kept as float16; not runnable."""
    return _recast(model, TensorProto.FLOAT, np.dtype(np.float16))


def expand(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every float16 initialiser turned into float32: runnable."""
    return _recast(model, TensorProto.FLOAT16, np.dtype(np.float32))


def run(model: onnx.ModelProto, tokenizer: WordPiece, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """Logits of an fp32 graph in ONNX Runtime, (n, 2) float32.

    Args:
        model: A runnable graph.
        tokenizer: The model's own.
        pairs: (n,) pairs, answered in the order given.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = []
    for start in range(0, len(pairs), RUN_BATCH):
        batch = [(pair.a, pair.b) for pair in pairs[start : start + RUN_BATCH]]
        encoded = tokenizer.encode_pairs(batch)
        feeds = {name: np.array(getattr(encoded, name), np.int64) for name in INPUTS}
        outputs.append(session.run(["logits"], feeds)[0])
    return np.concatenate(outputs)


def _recast(model: onnx.ModelProto, source: int, target: np.dtype[np.floating]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type != source:
            continue
        values = numpy_helper.to_array(tensor).astype(target)
        if not np.isfinite(values).all():
            raise ValueError(f"{tensor.name} does not fit into {target.name}")
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy
