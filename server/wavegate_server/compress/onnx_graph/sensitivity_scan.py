"""The subprocess of the sensitivity scan: `python -m wavegate_server.compress.onnx_graph.sensitivity_scan`.

Job: {"recipe", "source", "calib", "calib_rows", "choose", "choose_rows", "directory", "pre", "seconds"}
    -> {"full_error", "ranking": [{"nodes": [..], "at", "error", "share"}], "complete": bool}
The recipe is applied again and again, each time with one block left float. Blocks are ranked by how much closer the outputs
come to the original's, not by the metric: the error is smooth where the metric jumps. What comes closer is weighed against
the block's share of the weights: the last block of a net often holds a third of them, and would give back what int8 saved.
"""

import contextlib
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from wavegate_server.compress.measure.samples import Feed, load_samples
from wavegate_server.compress.onnx_graph import graphs
from wavegate_server.compress.onnx_graph.quantise import FAULTS, apply
from wavegate_server.core.compress.recipes import ACTIVATIONS, Recipe, named
from wavegate_shared.errors import UsageError

__all__ = ["main", "worth"]

_SCAN_SAMPLES = 48
_CALIB_SAMPLES = 24
_FREE_SHARE = 0.02
"""Share of the weights whose size nobody would notice: below it only the error counts."""


def main() -> int:
    """Read a job from standard input, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = _scan(job)
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    except FAULTS as error:
        answer = {"error": "failed", "detail": f"{type(error).__name__}: {str(error).strip()[:200]}"}
    print("\n" + json.dumps(answer))
    return 1 if "error" in answer else 0


def _scan(job: dict[str, Any]) -> dict[str, Any]:
    ends = time.monotonic() + job["seconds"]
    source, recipe = Path(job["source"]), _cheap(named(job["recipe"]))
    calib = _feeds(job, "calib")[:_CALIB_SAMPLES]
    feeds = _feeds(job, "choose")[:_SCAN_SAMPLES]
    wanted = _outputs(source, feeds)
    model = graphs.load(source)
    shares = graphs.weight_shares(model)
    ops = (set(recipe.ops) if recipe.method != "nbits" else {"MatMul", "Gather"}) - set(ACTIVATIONS)
    kinds = {node.name: node.op_type for node in model.graph.node}
    groups = [names for group in graphs.segments(model) if (names := [n for n in group if kinds[n] in ops])]
    with tempfile.TemporaryDirectory(prefix="wavegate-scan-") as scratch:
        target, ranges = Path(scratch) / "trial.onnx", Path(scratch) / "ranges.json"

        def error(kept: Sequence[str]) -> float:
            apply(recipe, source, target, calib, float_nodes=kept, ranges=ranges)
            return _error(wanted, _outputs(target, feeds))

        full, ranking = error([]), []
        for at, names in enumerate(groups):
            if time.monotonic() > ends:
                break
            share = sum(shares.get(name, 0.0) for name in names)
            ranking.append({"nodes": names, "at": at, "error": error(names), "share": share})
    done = len(ranking) == len(groups)
    return {"full_error": full, "ranking": sorted(ranking, key=lambda each: worth(each, full)), "complete": done}


def worth(block: dict[str, Any], full: float) -> float:
    """Error that a block left float takes away, for what it costs; the best is the smallest."""
    if not math.isfinite(full):
        return float(block["error"])
    return float((block["error"] - full) / (block["share"] + _FREE_SHARE))


def _cheap(recipe: Recipe) -> Recipe:
    """Ranking needs no histograms; the final candidate is made with the recipe as it is."""
    return replace(recipe, calibration="minmax")


def _feeds(job: dict[str, Any], which: str) -> list[Feed]:
    samples = load_samples(Path(job[which]), job["pre"], Path(job["directory"]))
    rows = job[f"{which}_rows"]
    return list((samples if rows is None else samples.rows(rows)).feeds)


def _outputs(path: Path, feeds: Sequence[Feed]) -> list[NDArray[np.float64]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {entry.name for entry in session.get_inputs()}
    return [
        np.asarray(session.run(None, {k: v for k, v in feed.items() if k in known})[0], dtype=np.float64).reshape(-1)
        for feed in feeds
    ]


def _error(wanted: Sequence[NDArray[np.float64]], got: Sequence[NDArray[np.float64]]) -> float:
    """Root of the squared difference over the squared size of the original's outputs."""
    pairs = [(a, b) for a, b in zip(wanted, got, strict=True) if a.shape == b.shape]
    if len(pairs) < len(wanted):
        return float("inf")
    off = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
    value = (off / max(sum(float((a**2).sum()) for a, _ in pairs), 1e-12)) ** 0.5
    return value if np.isfinite(value) else float("inf")


if __name__ == "__main__":
    sys.exit(main())
