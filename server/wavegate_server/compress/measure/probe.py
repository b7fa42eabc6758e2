"""The measuring subprocess: scores a model, or races several against each other. One JSON job in, one JSON answer out.

Run as `python -m wavegate_server.compress.measure.probe` with the job on standard input. It is a process of its own because a model
is a program: it may crash, hang or eat memory, and only then is its peak memory its own.

Jobs:
    {"kind": "score", "model": path, "samples": npz, "directory": dir, "pre": [...], "metric": {...}, "rows": [..] or null,
     "post": [...], "outputs": npz to write or null, "threads": n}
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
import math
import resource
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

from wavegate_server.compress.measure.detection import detection_agreement
from wavegate_server.compress.measure.ort_errors import ORT_ERRORS
from wavegate_server.compress.measure.samples import Feed, Samples, load_samples
from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.metrics import OF_THE_SET, Label, Metric, evaluate, score
from wavegate_shared.preprocess import build_post

__all__ = ["main"]

Flat = np.ndarray[Any, Any]
"""All numbers of an answer in a row, in the type the graph gives."""
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
    except ORT_ERRORS as error:
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
    except ORT_ERRORS as error:
        raise UsageError("bundle_invalid", f"the model does not load: {str(error).splitlines()[0][:300]}") from error


def _run(session: ort.InferenceSession, feed: Feed) -> list[np.ndarray[Any, Any]]:
    known = {entry.name for entry in session.get_inputs()}
    if lacking := sorted(known - feed.keys()):
        raise UsageError(
            "bundle_invalid", f"the graph takes {', '.join(sorted(known))}; the samples lack {', '.join(lacking)}"
        )
    try:
        return list(session.run(None, {name: array for name, array in feed.items() if name in known}))
    except ORT_ERRORS as error:
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
    answering = _Answering(session, job.get("post") or [])
    outputs, answers = answering.of(samples.feeds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    finite = all(np.isfinite(output).all() for output in outputs)
    answers = answers if finite else outputs
    scores = [_scored(metric, answer, samples.label(at)) for at, answer in enumerate(answers)]
    if job.get("outputs"):
        _write_outputs(Path(job["outputs"]), outputs, answers)
    return {
        "samples": len(outputs),
        "labelled": samples.labels is not None,
        "scores": scores,
        "value": _value(metric, answers, scores, samples),
        "top1": [_answer_number(job, answer) for answer in answers],
        "outputs_finite": finite,
        "load_ms": load_ms,
        "peak_rss_mb": peak,
    }


def _scored(metric: Metric, answer: Flat, label: Label) -> float:
    if metric.name == "detection_agreement" and np.isfinite(answer).all():
        return detection_agreement(answer, np.asarray(label, np.float64).reshape(-1))
    return score(metric, answer.tolist(), label)


def _value(metric: Metric, answers: Sequence[Flat], scores: list[float], samples: Samples) -> float:
    """As `wavegate_shared.metrics.evaluate`; the mean of the scores where the metric is one."""
    if metric.name not in OF_THE_SET:
        return math.fsum(scores) / len(scores)
    return evaluate(metric, [answer.tolist() for answer in answers], samples.label_list())


def _flat(output: np.ndarray[Any, Any]) -> Flat:
    return np.asarray(output).reshape(-1)


class _Answering:
    """Runs feeds one by one and keeps of each only the flat first output, before and after the declared operations."""

    def __init__(self, session: ort.InferenceSession, post: list[dict[str, Any]]) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        try:
            self._steps = build_post(post)
        except (DeviceError, ValueError) as error:
            raise UsageError("bundle_invalid", f"post-processing: {error}") from error

    def of(self, feeds: Sequence[Feed]) -> tuple[list[Flat], list[Flat]]:
        """Outputs and answers, the same arrays where no operation is declared; an output that is not finite is no answer."""
        outputs: list[Flat] = []
        answers: list[Flat] = []
        for feed in feeds:
            raw = _run(self._session, feed)
            outputs.append(_flat(raw[0]))
            plain = not self._steps or not np.isfinite(outputs[-1]).all()
            answers.append(outputs[-1] if plain else self._after(raw))
        return outputs, answers

    def _after(self, raw: list[Any]) -> Flat:
        named = dict(zip(self._names, raw, strict=True))
        try:
            for step in self._steps:
                step(named)
        except (DeviceError, ValueError) as error:
            raise UsageError("bundle_invalid", f"post-processing: {error}") from error
        return _flat(named[self._names[0]])


def _answer_number(job: dict[str, Any], answer: Flat) -> int:
    """A number that is equal for equal answers: the class, or for a sequence a checksum of it."""
    if any(step.get("op") == "ctc" for step in job.get("post") or []):
        return zlib.crc32(answer[answer >= 0].astype(np.float64).tobytes())
    return int(np.argmax(answer))


def _write_outputs(path: Path, outputs: list[Flat], answers: list[Flat]) -> None:
    """All outputs as one array, shorter ones filled with NaN, and their lengths; and so the answers made of them."""
    table, lengths = _table(outputs)
    same = all(after is before for before, after in zip(outputs, answers, strict=True))
    after, sizes = (table, lengths) if same else _table(answers)
    np.savez(path, outputs=table, lengths=lengths, answers=after, answer_lengths=sizes)


def _table(rows: list[Flat]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    table = np.full((len(rows), max(len(row) for row in rows)), np.nan)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row
    return table, np.array([len(row) for row in rows])


def _race(job: dict[str, Any]) -> dict[str, Any]:
    common = list(_samples(job).feeds[:_RACE_SAMPLES])
    sessions = {name: _session(path) for name, path in job["models"].items()}
    inputs = {name: list(_samples({**job, **front}).feeds[:_RACE_SAMPLES]) for name, front in job["fronts"].items()}
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
        table, lengths = archive["answers"], archive["answer_lengths"]
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
