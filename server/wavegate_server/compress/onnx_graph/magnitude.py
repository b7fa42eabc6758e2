"""Magnitude pruning: the smallest weights become zero. What it is good for, measured: the download, and nothing else.

ONNX Runtime's kernels are dense and the file keeps every zero, so size and speed stay what they were. Only a compressed
download shrinks; `download_bytes` measures that, as zstd at level 3.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import onnx
from onnx import numpy_helper

from wavegate_server.compress.onnx_graph import graphs
from wavegate_shared.errors import UsageError

__all__ = ["LEVEL", "UNCHANGED", "download_bytes", "is_pruned", "prune"]

LEVEL = 3
"""zstd's level: what a server can afford for every version, and within a few percent of the slow ones on weights."""
UNCHANGED = "file and speed unchanged; only the download shrinks"
_SMALL = 1024


class _Counted:
    """A file that only counts what is written to it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)


def is_pruned(candidate: str) -> bool:
    """Whether a candidate is of these recipes, by its name: the same kernels on the same shapes, so the same speed."""
    return candidate.startswith("magnitude-")


def prune(model: onnx.ModelProto, *, threshold: float | None = None, sparsity: float | None = None) -> float:
    """Set weights of small magnitude to zero, in place; gives the share of the weights looked at that are zero afterwards.

    Args:
        model: with its weights.
        threshold: every weight below it in magnitude goes; or
        sparsity: this share of each tensor's weights goes, the smallest.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {
        weight.name
        for node in graphs.weighted_nodes(model)
        if (weight := graphs.weight_of(node, constants)) is not None and weight.data_type == onnx.TensorProto.FLOAT
    }
    zero = total = 0
    for name in sorted(names):
        values = numpy_helper.to_array(constants[name]).copy()
        if values.size < _SMALL:
            continue
        size = np.abs(values)
        limit = threshold if threshold is not None else float(np.quantile(size, sparsity or 0.0))
        values[size < limit] = 0
        constants[name].CopyFrom(numpy_helper.from_array(values, name))
        zero, total = zero + int((values == 0).sum()), total + values.size
    return zero / max(total, 1)


def download_bytes(path: Path) -> int:
    """Bytes of the file after zstd: what a compressed download carries.

    Raises:
        UsageError: `setup` where zstandard is not installed.
    """
    if find_spec("zstandard") is None:
        raise UsageError(
            "setup", "a budget with a download item needs zstandard: pip install 'wavegate-server[compress]'"
        )
    import zstandard

    counted = _Counted()
    with path.open("rb") as file:
        zstandard.ZstdCompressor(level=LEVEL).copy_stream(file, cast(BinaryIO, counted))
    return counted.size
