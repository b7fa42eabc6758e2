"""The measuring subprocess: scores a model, or races several against each other. One JSON job in, one JSON answer out.

Run as `python -m wavegate_server.compress.probe` with the job on standard input. It is a process of its own because a model
is a program: it may crash, hang or eat memory, and only then is its peak memory its own.

Jobs:
    {"kind": "score", "model": path, "samples": npz, "directory": dir, "pre": [...], "metric": {...}, "rows": [..] or null,
     "outputs": npz to write or null, "threads": n}
        -> {"scores": [..], "outputs_finite": bool, "load_ms", "peak_rss_mb", "samples", "top1": [..], "value"}
    {"kind": "race", "models": {name: path}, "samples": npz, "directory": dir, "pre": [...], "rounds": n, "seconds": s,
     "fronts": {name: {"directory", "pre"}} of models with their own pre-processing}
        -> {name: {"p50_ms", "p95_ms", "cpu_ms"}}, all interleaved in this one process, one intra-op thread
    {"kind": "custom", "entry": "file.py:function", "before": npz, "after": npz, "samples": npz, "rows", "rounds": n}
        -> {"before", "after", "drops": [..]} by the user's own metric, on the set and on resampled sets
    {"kind": "feed", "samples": npz, "directory", "pre", "target": npz} -> {"samples": n}; writes the first feed
Failures: {"error": code, "detail": text} and exit code 1.
"""

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

from wavegate_server.compress.inputs import Feed, Samples, load_samples
from wavegate_shared.errors import UsageError
from wavegate_shared.metrics import Metric, evaluate, score

__all__ = ["main"]

_RACE_SAMPLES = 24
_LEAST_ROUNDS = 2


def main() -> int:
    """Read a job from standard input, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    kinds: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "score": _score,
        "race": _race,
        "custom": _custom,
        "feed": _feed,
    }
    try:
        answer = kinds[job["kind"]](job)
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    except (RuntimeError, ValueError, IndexError, ort.capi.onnxruntime_pybind11_state.Fail) as error:
        answer = {"error": "load_failed", "detail": (str(error).splitlines() or ["?"])[0][:400]}
    print("\n" + json.dumps(answer))
    return 1 if "error" in answer else 0


def _session(path: str, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen exception types here, and each means: it does not load
        raise UsageError("bundle_invalid", f"the model does not load: {str(error).splitlines()[0][:300]}") from error


def _run(session: ort.InferenceSession, feed: Feed) -> list[np.ndarray[Any, Any]]:
    known = {entry.name for entry in session.get_inputs()}
    try:
        return list(session.run(None, {name: array for name, array in feed.items() if name in known}))
    except Exception as error:  # as in `_session`: each of them means that the inputs and the graph do not fit
        raise UsageError("bundle_invalid", f"the model does not run: {str(error).splitlines()[0][:300]}") from error


def _samples(job: dict[str, Any]) -> Samples:
    samples = load_samples(Path(job["samples"]), job["pre"], Path(job["directory"]))
    rows = job.get("rows")
    return samples if rows is None else samples.rows(rows)


def _score(job: dict[str, Any]) -> dict[str, Any]:
    samples = _samples(job)
    metric = msgspec.convert(job["metric"], Metric)
    started = time.perf_counter()
    session = _session(job["model"], job.get("threads", 1))
    load_ms = (time.perf_counter() - started) * 1000
    outputs = [_flat(_run(session, feed)[0]) for feed in samples.feeds]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    labels = samples.label_list()
    scores = [score(metric, output, label) for output, label in zip(outputs, labels, strict=True)]
    if job.get("outputs"):
        _write_outputs(Path(job["outputs"]), outputs)
    return {
        "samples": len(outputs),
        "labelled": samples.labels is not None,
        "scores": scores,
        "value": evaluate(metric, outputs, labels),
        "top1": [int(np.argmax(output)) for output in outputs],
        "outputs_finite": all(np.isfinite(output).all() for output in outputs),
        "load_ms": load_ms,
        "peak_rss_mb": peak,
    }


def _flat(output: np.ndarray[Any, Any]) -> list[float]:
    return [float(value) for value in np.asarray(output).reshape(-1)]


def _write_outputs(path: Path, outputs: list[list[float]]) -> None:
    """All outputs as one array, shorter ones filled with NaN, and their lengths."""
    table = np.full((len(outputs), max(len(output) for output in outputs)), np.nan)
    for row, output in zip(table, outputs, strict=True):
        row[: len(output)] = output
    np.savez(path, outputs=table, lengths=np.array([len(output) for output in outputs]))


def _race(job: dict[str, Any]) -> dict[str, Any]:
    common = _samples(job).feeds[:_RACE_SAMPLES]
    sessions = {name: _session(path) for name, path in job["models"].items()}
    inputs = {name: _samples({**job, **front}).feeds[:_RACE_SAMPLES] for name, front in job["fronts"].items()}
    feeds = {name: _known(session, inputs.get(name, common)) for name, session in sessions.items()}
    wall: dict[str, list[float]] = {name: [] for name in sessions}
    cpu: dict[str, list[float]] = {name: [] for name in sessions}
    ends = time.monotonic() + job["seconds"]
    for number in range(job["rounds"] + 1):
        if number > _LEAST_ROUNDS and time.monotonic() > ends:
            break
        for at in range(len(common)):
            for name, session in sessions.items():
                started, used = time.perf_counter(), time.thread_time()
                session.run(None, feeds[name][at])
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


def _known(session: ort.InferenceSession, feeds: list[Feed]) -> list[Feed]:
    names = {entry.name for entry in session.get_inputs()}
    return [{name: array for name, array in feed.items() if name in names} for feed in feeds]


def _feed(job: dict[str, Any]) -> dict[str, Any]:
    samples = _samples(job)
    np.savez(job["target"], allow_pickle=False, **samples.feeds[0])
    return {"samples": len(samples.feeds), "labelled": samples.labels is not None}


def _custom(job: dict[str, Any]) -> dict[str, Any]:
    function = _entry(job["entry"])
    labels = np.array(_samples(job).label_list())
    before, after = _read_outputs(job["before"]), _read_outputs(job["after"])
    sign = 1.0 if job["direction"] == "up" else -1.0
    rng = np.random.default_rng(job["seed"])
    drops = []
    for _ in range(job["rounds"]):
        chosen = rng.integers(0, len(labels), len(labels))
        old, new = (_call(function, [side[at] for at in chosen], labels[chosen]) for side in (before, after))
        drops.append(sign * (old - new))
    return {"before": _call(function, before, labels), "after": _call(function, after, labels), "drops": drops}


def _read_outputs(path: str) -> list[np.ndarray[Any, Any]]:
    with np.load(path, allow_pickle=False) as archive:
        table, lengths = archive["outputs"], archive["lengths"]
    return [row[:length] for row, length in zip(table, lengths, strict=True)]


def _entry(text: str) -> Callable[..., Any]:
    file, _, name = text.rpartition(":")
    spec = importlib.util.spec_from_file_location("wavegate_user_metric", file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise UsageError("invalid", f"no metric file {file!r}; write file.py:function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything, and the user is to see it
        raise UsageError("metric_failed", f"the metric file raised {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError("invalid", f"{file} has no function {name!r}")
    return function  # type: ignore[no-any-return]  # whatever the user wrote


def _call(function: Callable[..., Any], outputs: list[np.ndarray[Any, Any]], labels: np.ndarray[Any, Any]) -> float:
    try:
        value = float(function(outputs, labels))
    except Exception as error:  # as above
        raise UsageError(
            "metric_failed", f"the metric raised {type(error).__name__} on {len(outputs)} samples: {error}"
        ) from error
    if not np.isfinite(value):
        raise UsageError("metric_failed", f"the metric gave {value} on {len(outputs)} samples; it must take any subset")
    return value


if __name__ == "__main__":
    sys.exit(main())
