"""The separate scorer: loads a shipped bundle's file beside its original and scores both on samples that no job has seen.

It shares no code with the compressor but the tokenizer, so that a fault of the compressor's measuring is seen here.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import yaml

from wavegate_shared.wordpiece import WordPiece

ROUNDS = 8
RACE = 40


@dataclass(frozen=True)
class Unseen:
    """What the scorer found. `drop` in the metric's unit, `speed` = original / result."""

    before: float
    after: float
    drop: float
    agreement: float
    size_ratio: float
    speed: float


def score(original: Path, result: Path, unseen: Path) -> Unseen:
    """Compare two model files on an npz of labelled samples; the bundle of `result` says how inputs are prepared."""
    document = yaml.safe_load((result / "bundle.yaml").read_text(encoding="utf-8"))
    with np.load(unseen, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    labels = arrays.pop("label")
    inputs = {name.removeprefix("input."): array for name, array in arrays.items()}
    feeds = [_feed(document, result, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(len(labels))]
    sessions = [_session(original), _session(result / document["model_file"])]
    outputs = [[session.run(None, feed)[0].reshape(-1) for feed in feeds] for session in sessions]
    up = document["metric"]["direction"] == "up"
    values = [_value(out, labels, up) for out in outputs]
    same = [_same(a, b) for a, b in zip(*outputs, strict=True)]
    times = _race(sessions, feeds[:RACE])
    sizes = [original.stat().st_size, (result / document["model_file"]).stat().st_size]
    drop = values[0] - values[1] if up else values[1] - values[0]
    return Unseen(values[0], values[1], drop, float(np.mean(same)), sizes[1] / sizes[0], times[0] / times[1])


def _same(a: Any, b: Any) -> bool:
    """The same class, or numbers within 5 %."""
    return int(np.argmax(a)) == int(np.argmax(b)) if len(a) > 1 else bool(abs(a[0] - b[0]) <= 0.05 * abs(a[0]))


def _value(outputs: list[Any], labels: Any, up: bool) -> float:
    if up:
        return float(np.mean([int(np.argmax(out)) == int(label) for out, label in zip(outputs, labels, strict=True)]))
    return float(np.mean([abs(out[0] - label) for out, label in zip(outputs, labels, strict=True)]))


def _feed(document: dict[str, Any], folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    for step in document.get("pre") or []:
        words = (folder / step["vocab"]).read_text(encoding="utf-8").splitlines()
        coder = _coder(tuple(words), step["max_length"])
        pair = raw.pop(step["input"])[0]
        made = coder.encode_pairs([(str(pair[0]), str(pair[1]))])
        raw = {**raw, **{name: np.array(getattr(made, name), np.int64) for name in step["outputs"]}}
    return raw


_CODERS: dict[tuple[str, ...], WordPiece] = {}


def _coder(words: tuple[str, ...], length: int) -> WordPiece:
    if words not in _CODERS:
        _CODERS[words] = WordPiece(list(words), lowercase=True, max_length=length)
    return _CODERS[words]


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _race(sessions: list[Any], feeds: list[Any]) -> list[float]:
    wall: list[list[float]] = [[] for _ in sessions]
    for number in range(ROUNDS + 1):
        for feed in feeds:
            for session, times in zip(sessions, wall, strict=True):
                started = time.perf_counter()
                session.run(None, feed)
                if number:
                    times.append(time.perf_counter() - started)
    return [float(np.median(times)) for times in wall]
