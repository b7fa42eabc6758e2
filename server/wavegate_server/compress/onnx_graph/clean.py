"""The subprocess that makes the graph recipes start from: `python -m wavegate_server.compress.onnx_graph.clean`.

Job: {"source", "target", "stored", "probe": npz of one feed or null} -> {"opset_before", "opset", "notes": [..], "cleaned"}
The graph is upgraded to an opset that quantises, its weights become fp32 in one file, stale shapes go, every node gets a
name, and onnxslim cleans it where it is installed. What came out must compute what went in, or the cleaning is left out.
"""

import contextlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from wavegate_server.compress.measure.ort_errors import ORT_ERRORS
from wavegate_server.compress.onnx_graph import graphs
from wavegate_shared.errors import UsageError

__all__ = ["main"]

_SLIM_LIMIT_BYTES = 500_000_000
_TOLERANCE = 1e-3


def main() -> int:
    """Read a job from standard input, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = _prepare(job)
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    print("\n" + json.dumps(answer))
    return 1 if "error" in answer else 0


def _prepare(job: dict[str, Any]) -> dict[str, Any]:
    notes = []
    model = graphs.load(Path(job["source"]))
    if job["stored"] == "float16":
        graphs.expand_float16(model)
    before = graphs.opset(model)
    upgraded = graphs.upgrade(model)
    if graphs.opset(upgraded) != before:
        notes.append(f"opset {before} upgraded to {graphs.opset(upgraded)}")
    graphs.strip_shapes(upgraded)
    target = Path(job["target"])
    cleaned = _cleaned(upgraded, target, job["probe"], notes)
    return {"opset_before": before, "opset": graphs.opset(upgraded), "notes": notes, "cleaned": cleaned}


def _cleaned(model: onnx.ModelProto, target: Path, probe: str | None, notes: list[str]) -> bool:
    """Write the model to `target`, as onnxslim leaves it where that computes the same; says whether, and in a note why not.

    The model as it was waits in the file, not in memory: `model` is used up.
    """
    _write(model, target)
    if find_spec("onnxslim") is None:
        notes.append("not cleaned: onnxslim is not installed (pip install 'wavegate-server[compress]')")
        return False
    if model.ByteSize() > _SLIM_LIMIT_BYTES:
        notes.append("not cleaned: above 500 MB cleaning would not fit the memory limit")
        return False
    import onnxslim

    inputs, nodes = list(model.graph.input), len(model.graph.node)
    try:
        slim: onnx.ModelProto | None = onnxslim.slim(model)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, SystemExit) as error:
        notes.append(f"not cleaned: onnxslim failed ({type(error).__name__})")
        return False
    trial, left = target.with_name(f"{target.name}.slim"), 0
    if slim is not None:
        del slim.graph.input[:]  # the bundle names them all: devices refuse a graph without one that was unused
        slim.graph.input.extend(inputs)
        left = len(slim.graph.node)
        _write(slim, trial)
    same = slim is not None and (probe is None or _same(target, trial, probe))
    if same:
        trial.replace(target)
    trial.unlink(missing_ok=True)
    if not same:
        notes.append("not cleaned: the cleaned graph computed something else")
    elif nodes > left:
        notes.append(f"cleaning removed {nodes - left} of {nodes} nodes")
    return same


def _write(model: onnx.ModelProto, target: Path) -> None:
    graphs.strip_shapes(model)
    graphs.name_nodes(model)
    graphs.save(model, target)


def _same(model: Path, slim: Path, probe: str) -> bool:
    with np.load(probe, allow_pickle=False) as archive:
        feed = {name: archive[name] for name in archive.files}
    first, second = (_outputs(each, feed) for each in (model, slim))
    if first is None or second is None or len(first) != len(second):
        return False
    return all(
        a.shape == b.shape and bool(np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
        for a, b in zip(first, second, strict=True)
    )


def _outputs(model: Path, feed: dict[str, Any]) -> list[Any] | None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        known = {entry.name for entry in session.get_inputs()}
        return [np.asarray(o) for o in session.run(None, {k: v for k, v in feed.items() if k in known})]
    except ORT_ERRORS as error:
        sys.stderr.write(f"{error}\n")
        return None


if __name__ == "__main__":
    sys.exit(main())
