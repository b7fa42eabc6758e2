"""The model as an ONNX graph: export, inference."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from address_match_zh_recipe.net import Matcher
from address_match_zh_recipe.pairs import Pair
from wavegate_shared.wordpiece import WordPiece

__all__ = ["INPUTS", "OPSET", "export", "run"]

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
RUN_BATCH = 64


def export(model: Matcher) -> onnx.ModelProto:
    """The model as a checked fp32 graph: three int64 inputs, `logits` (n, 2); batch and width stay dynamic."""
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
            dynamo=False,
        )
        graph = onnx.load(str(path))
    graph.producer_name, graph.producer_version = "wavegate-address-match-zh", "1"
    onnx.checker.check_model(graph, full_check=True)
    return graph


def run(model: onnx.ModelProto, tokenizer: WordPiece, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """Logits of a graph in ONNX Runtime, (n, 2) float32, in the order of the pairs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = []
    for start in range(0, len(pairs), RUN_BATCH):
        encoded = tokenizer.encode_pairs([(pair.a, pair.b) for pair in pairs[start : start + RUN_BATCH]])
        feeds = {name: np.array(getattr(encoded, name), np.int64) for name in INPUTS}
        outputs.append(session.run(["logits"], feeds)[0])
    return np.concatenate(outputs)
