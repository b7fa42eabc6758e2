"""The subprocess that makes the graph recipes start from: `python -m wavegate_server.compress.prepare`.

Job: {"source", "target", "stored", "probe": npz of one feed or null} -> {"opset_before", "opset", "notes": [..], "cleaned"}
The graph is upgraded to an opset that quantises, its weights become fp32 in one file, stale shapes go, every node gets a
name, and onnxslim cleans it where it is installed. What came out must compute what went in, or the cleaning is left out.
"""

import contextlib
import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from wavegate_server.compress import graphs
from wavegate_server.compress.ort_errors import ORT_ERRORS
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
    cleaned = _cleaned(upgraded, job["probe"], notes)
    result = cleaned or upgraded
    graphs.strip_shapes(result)
    graphs.name_nodes(result)
    graphs.save(result, Path(job["target"]))
    return {"opset_before": before, "opset": graphs.opset(result), "notes": notes, "cleaned": cleaned is not None}


def _cleaned(model: onnx.ModelProto, probe: str | None, notes: list[str]) -> onnx.ModelProto | None:
    """The model as onnxslim leaves it, or None with a note: not installed, too large, failed, or changed results."""
    if find_spec("onnxslim") is None:
        notes.append("not cleaned: onnxslim is not installed (pip install 'wavegate-server[compress]')")
        return None
    if model.ByteSize() > _SLIM_LIMIT_BYTES:
        notes.append("not cleaned: above 500 MB cleaning would not fit the memory limit")
        return None
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        slim: onnx.ModelProto | None = onnxslim.slim(copy)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, SystemExit) as error:
        notes.append(f"not cleaned: onnxslim failed ({type(error).__name__})")
        return None
    if slim is not None:
        _keep_inputs(model, slim)
    if slim is None or (probe and not _same(model, slim, probe)):
        notes.append("not cleaned: the cleaned graph computed something else")
        return None
    gone = len(model.graph.node) - len(slim.graph.node)
    if gone:
        notes.append(f"cleaning removed {gone} of {len(model.graph.node)} nodes")
    return slim


def _keep_inputs(model: onnx.ModelProto, slim: onnx.ModelProto) -> None:
    """Give back the inputs that cleaning dropped as unused: the bundle names them, and devices refuse a graph without."""
    del slim.graph.input[:]
    slim.graph.input.extend(model.graph.input)


def _same(model: onnx.ModelProto, slim: onnx.ModelProto, probe: str) -> bool:
    with np.load(probe, allow_pickle=False) as archive:
        feed = {name: archive[name] for name in archive.files}
    first, second = (_outputs(each, feed) for each in (model, slim))
    if first is None or second is None or len(first) != len(second):
        return False
    return all(
        a.shape == b.shape and bool(np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
        for a, b in zip(first, second, strict=True)
    )


def _outputs(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any] | None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    buffer = io.BytesIO(model.SerializeToString())
    try:
        session = ort.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
        known = {entry.name for entry in session.get_inputs()}
        return [np.asarray(o) for o in session.run(None, {k: v for k, v in feed.items() if k in known})]
    except ORT_ERRORS as error:
        sys.stderr.write(f"{error}\n")
        return None


if __name__ == "__main__":
    sys.exit(main())
