"""The separate scorer: loads a shipped bundle's file beside its original and scores both on samples that no job has seen.

A process of its own (`python -m tests.bench._compress_scorer`, one JSON job in, one answer out) that shares no code with the
compressor: its own metrics, its own clock, its own intervals. Only the declared pre-processing is the product's, as a device
runs it; each side is fed by its own bundle's operations, since a result may bring a smaller vocabulary or input.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
import yaml
from numpy.typing import NDArray

from wavegate_shared.preprocess import build_pre

__all__ = ["Unseen", "main", "score", "score_in_process"]

ROUNDS, RACE, RACE_S = 8, 40, 14.0
RACES = 3
Z = 1.645
DRAWS = 300
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Unseen:
    """What the scorer found.

    Attributes:
        drop: loss of the metric, in its unit; `slack` is the half width of its own one-sided 95 % interval.
        agreement: share of the same classes; of numbers within 5 % where the output is one number.
        speed: original / result; of three processes the middle one, since where a process's memory lies shifts a small model's time.
    """

    samples: int
    before: float
    after: float
    drop: float
    slack: float
    agreement: float
    size_ratio: float
    speed: float
    finite: bool


def score_in_process(original: Path, bundle: Path, result: Path, unseen: Path) -> Unseen:
    """`score` in processes of its own, one after the other.

    Raises:
        RuntimeError: it failed; the end of what it said.
    """
    runs = [_one_process(original, bundle, result, unseen) for _ in range(RACES)]
    return replace(runs[0], speed=median(run.speed for run in runs))


def _one_process(original: Path, bundle: Path, result: Path, unseen: Path) -> Unseen:
    job = {"original": str(original), "bundle": str(bundle), "result": str(result), "unseen": str(unseen)}
    command = [sys.executable, "-m", "tests.bench._compress_scorer"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, cwd=root, check=False)
    if done.returncode:
        raise RuntimeError(f"the scorer failed: {done.stderr.strip()[-400:]}")
    return Unseen(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Read a job from standard input, print the answer."""
    job = {name: Path(value) for name, value in json.load(sys.stdin).items()}
    print(json.dumps(asdict(score(job["original"], job["bundle"], job["result"], job["unseen"]))))
    return 0


def score(original: Path, bundle: Path, result: Path, unseen: Path) -> Unseen:
    """Compare the result bundle's file with the original model on an npz of labelled samples."""
    documents = [yaml.safe_load((folder / "bundle.yaml").read_text(encoding="utf-8")) for folder in (bundle, result)]
    files = [original, result / documents[1]["model_file"]]
    with np.load(unseen, allow_pickle=False) as archive:
        labels = archive["label"]
        inputs = {name.removeprefix("input."): archive[name] for name in archive.files if name != "label"}
    sessions = [_session(path) for path in files]
    feeds = [
        _feeds(document, folder, inputs, len(labels), session)
        for document, folder, session in zip(documents, (bundle, result), sessions, strict=True)
    ]
    outputs = [
        [np.asarray(session.run(None, feed)[0], dtype=np.float64).reshape(-1) for feed in some]
        for session, some in zip(sessions, feeds, strict=True)
    ]
    before, after, drop, slack = _judged(documents[0]["metric"], outputs, labels)
    times = _race(sessions, feeds)
    sizes = [path.stat().st_size for path in files]
    same = [_same(a, b) for a, b in zip(*outputs, strict=True)]
    return Unseen(
        samples=len(labels),
        before=before,
        after=after,
        drop=drop,
        slack=slack,
        agreement=float(np.mean(same)),
        size_ratio=sizes[1] / sizes[0],
        speed=times[0] / times[1],
        finite=all(bool(np.isfinite(out).all()) for out in outputs[1]),
    )


def _same(a: Array, b: Array) -> bool:
    """The same class, or numbers within 5 %."""
    return int(np.argmax(a)) == int(np.argmax(b)) if len(a) > 1 else bool(abs(a[0] - b[0]) <= 0.05 * abs(a[0]))


def _judged(metric: dict[str, Any], outputs: list[list[Array]], labels: Any) -> tuple[float, float, float, float]:
    """The metric before and after, its loss, and how far that loss may be off."""
    sign = 1.0 if metric.get("direction", "up") == "up" else -1.0
    sides = [
        np.array([_score(metric, out, label) for out, label in zip(some, labels, strict=True)]) for some in outputs
    ]
    root = metric["name"] == "root_mean_squared_error"
    values = [float(np.sqrt((side**2).mean())) if root else float(side.mean()) for side in sides]
    if root:
        rng = np.random.default_rng(9)
        rows = [rng.integers(0, len(labels), len(labels)) for _ in range(DRAWS)]
        drops = [sign * (np.sqrt((sides[0][r] ** 2).mean()) - np.sqrt((sides[1][r] ** 2).mean())) for r in rows]
        return values[0], values[1], sign * (values[0] - values[1]), Z * float(np.std(drops))
    apart = sign * (sides[0] - sides[1])
    slack = Z * float(apart.std(ddof=1)) / np.sqrt(len(apart)) if apart.any() else 3.0 / len(apart)
    return values[0], values[1], float(apart.mean()), float(slack)


def _score(metric: dict[str, Any], output: Array, label: Any) -> float:
    """One sample's score; the metrics of sets (F1, AUC) are judged as accuracy here."""
    name, wanted = metric["name"], np.asarray(label, dtype=np.float64).reshape(-1)
    if not np.isfinite(output).all():
        return 0.0 if metric.get("direction", "up") == "up" else 1e9
    if name == "mean_absolute_error":
        return float(np.abs(output[: len(wanted)] - wanted).mean())
    if name in ("root_mean_squared_error", "error_bound"):
        off = float(np.sqrt(((output[: len(wanted)] - wanted) ** 2).mean()))
        if name == "root_mean_squared_error":
            return off
        scale = float(np.sqrt((wanted**2).mean())) if metric.get("relative", True) else 1.0
        return float(off <= metric.get("bound", 0.05) * scale)
    if name == "detection_agreement":
        return _found(output, wanted)
    chosen = int(np.argmax(output)) if len(output) > 1 else int(output[0] > 0.5)
    return float(chosen == int(wanted[0]))


def _found(output: Array, wanted: Array) -> float:
    """F1 of boxes (x1, y1, x2, y2, score, class) with a score of 0.25 or more: same class, overlap of at least a half."""
    got, want = (side[: len(side) // 6 * 6].reshape(-1, 6) for side in (output, wanted))
    got, want = got[got[:, 4] >= 0.25], want[want[:, 4] >= 0.25]
    if not len(got) or not len(want):
        return float(len(got) == len(want))
    low, high = np.maximum(got[:, None, :2], want[None, :, :2]), np.minimum(got[:, None, 2:4], want[None, :, 2:4])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(side[:, 2:4] - side[:, :2], 0, None).prod(axis=1) for side in (got, want)]
    overlap = both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-9)
    overlap[got[:, None, 5] != want[None, :, 5]] = 0
    hits = 0
    for row in np.argsort(-got[:, 4]):
        best = int(overlap[row].argmax())
        if overlap[row, best] >= 0.5:
            hits += 1
            overlap[:, best] = 0
    return 2 * hits / (len(got) + len(want))


def _feeds(
    document: dict[str, Any], folder: Path, inputs: dict[str, Any], samples: int, session: ort.InferenceSession
) -> list[dict[str, Any]]:
    steps = build_pre(document.get("pre") or [], lambda name: (folder / name).read_bytes())
    known = {entry.name for entry in session.get_inputs()}
    feeds = []
    for at in range(samples):
        arrays: dict[str, Any] = {name: array[at : at + 1] for name, array in inputs.items()}
        for step in steps:
            step(arrays)
        feeds.append({name: array for name, array in arrays.items() if name in known})
    return feeds


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _race(sessions: list[ort.InferenceSession], feeds: list[list[dict[str, Any]]]) -> list[float]:
    """Median time of each, the two taking turns on the same samples."""
    wall: list[list[float]] = [[] for _ in sessions]
    ends = time.perf_counter() + RACE_S
    for number in range(ROUNDS + 1):
        for at in range(min(RACE, len(feeds[0]))):
            for side, session in enumerate(sessions):
                started = time.perf_counter()
                session.run(None, feeds[side][at])
                if number:  # round 0 warms every input shape
                    wall[side].append(time.perf_counter() - started)
        if number and time.perf_counter() > ends:
            break
    return [float(np.median(times)) for times in wall]


if __name__ == "__main__":
    sys.exit(main())
