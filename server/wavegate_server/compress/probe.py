"""The measuring subprocess: scores a model, or races several against each other. One JSON job in, one JSON answer out.

Run as `python -m wavegate_server.compress.probe` with the job on standard input. It is a process of its own because a model
is a program: it may crash, hang or eat memory, and only then is its peak memory its own.

Jobs:
    {"kind": "score", "model": path, "samples": npz, "directory": dir, "pre": [...], "metric": {...}}
        -> {"scores": [..], "outputs_finite": bool, "load_ms", "peak_rss_mb", "samples", "top1": [..], "value"}
    {"kind": "race", "models": {name: path}, "samples": npz, "directory": dir, "pre": [...], "rounds": n}
        -> {name: {"p50_ms", "p95_ms", "cpu_ms"}}, all interleaved in this one process, one intra-op thread
Failures: {"error": code, "detail": text} and exit code 1.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

from wavegate_server.compress.inputs import Feed, load_samples
from wavegate_shared.errors import UsageError
from wavegate_shared.metrics import Metric, score

__all__ = ["main"]

_RACE_SAMPLES = 24


def main() -> int:
    """Read a job from standard input, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    try:
        answer = _score(job) if job["kind"] == "score" else _race(job)
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    except (RuntimeError, ValueError, IndexError, ort.capi.onnxruntime_pybind11_state.Fail) as error:
        answer = {"error": "load_failed", "detail": str(error).splitlines()[0][:400]}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


def _session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen exception types here, and each means: it does not load
        raise UsageError("bundle_invalid", f"the model does not load: {str(error).splitlines()[0][:300]}") from error


def _run(session: ort.InferenceSession, feed: Feed) -> list[float]:
    known = {entry.name for entry in session.get_inputs()}
    outputs = session.run(None, {name: array for name, array in feed.items() if name in known})
    return [float(value) for value in np.asarray(outputs[0]).reshape(-1)]


def _score(job: dict[str, Any]) -> dict[str, Any]:
    samples = load_samples(Path(job["samples"]), job["pre"], Path(job["directory"]))
    metric = msgspec.convert(job["metric"], Metric)
    started = time.perf_counter()
    session = _session(job["model"])
    load_ms = (time.perf_counter() - started) * 1000
    outputs = [_run(session, feed) for feed in samples.feeds]
    labels = samples.labels if samples.labels is not None else np.zeros(len(outputs))
    scores = [score(metric, output, float(label)) for output, label in zip(outputs, labels, strict=True)]
    return {
        "samples": len(outputs),
        "labelled": samples.labels is not None,
        "scores": scores,
        "value": float(np.mean(scores)),
        "top1": [int(np.argmax(output)) for output in outputs],
        "outputs_finite": all(np.isfinite(output).all() for output in outputs),
        "load_ms": load_ms,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _race(job: dict[str, Any]) -> dict[str, Any]:
    samples = load_samples(Path(job["samples"]), job["pre"], Path(job["directory"]))
    feeds = samples.feeds[:_RACE_SAMPLES]
    sessions = {name: _session(path) for name, path in job["models"].items()}
    wall: dict[str, list[float]] = {name: [] for name in sessions}
    cpu: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(job["rounds"] + 1):
        for feed in feeds:
            for name, session in sessions.items():
                started, used = time.perf_counter(), time.thread_time()
                _run(session, feed)
                if number:  # round 0 warms every input shape
                    wall[name].append((time.perf_counter() - started) * 1000)
                    cpu[name].append((time.thread_time() - used) * 1000)
    return {
        name: {
            "p50_ms": float(np.median(wall[name])),
            "p95_ms": float(np.percentile(wall[name], 95)),
            "cpu_ms": float(np.median(cpu[name])),
        }
        for name in sessions
    }


if __name__ == "__main__":
    sys.exit(main())
