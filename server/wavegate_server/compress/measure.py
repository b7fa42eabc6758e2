"""Running the measuring subprocess with limits, from the parent's side. See `probe` for what is measured."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from wavegate_server.core.bundle_spec import BundleSpec
from wavegate_shared.errors import UsageError

__all__ = ["Latency", "Score", "race", "score_model"]

TIMEOUT_S = 300.0
MEMORY_LIMIT_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did on labelled samples.

    Attributes:
        value: the metric.
        scores: (n,) per-sample scores; `value` is their mean.
        top1: (n,) predicted classes, for agreement.
        finite: whether all outputs were finite.
        load_ms: time to make a session.
        peak_rss_mb: peak resident memory of the whole process, runtime included.
    """

    value: float
    scores: list[float]
    top1: list[int]
    finite: bool
    load_ms: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one inference, batch 1, one intra-op thread. `cpu_ms` is CPU time."""

    p50_ms: float
    p95_ms: float
    cpu_ms: float


def score_model(model: Path, samples: Path, spec: BundleSpec, directory: Path) -> Score:
    """Score `model` on an npz of labelled samples, in a process of its own.

    Raises:
        UsageError: `bundle_invalid` when it does not load, crashes, hangs, or the samples do not fit.
    """
    metric = msgspec.to_builtins(spec.metric)
    job = {"kind": "score", "model": str(model), "samples": str(samples), "metric": metric}
    answer = _probe({**job, "directory": str(directory), "pre": spec.pre})
    return Score(
        value=answer["value"],
        scores=answer["scores"],
        top1=answer["top1"],
        finite=answer["outputs_finite"],
        load_ms=answer["load_ms"],
        peak_rss_mb=answer["peak_rss_mb"],
    )


def race(
    models: dict[str, Path], samples: Path, spec: BundleSpec, directory: Path, *, rounds: int = 12
) -> dict[str, Latency]:
    """Latency of several models on the same inputs, interleaved in one process. Raises like `score_model`."""
    paths = {name: str(path) for name, path in models.items()}
    job = {"kind": "race", "models": paths, "samples": str(samples), "rounds": rounds}
    answer = _probe({**job, "directory": str(directory), "pre": spec.pre})
    return {name: Latency(**answer[name]) for name in models}


def _probe(job: dict[str, Any]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wavegate_server.compress.probe"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment,
            preexec_fn=_limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError("bundle_invalid", f"the model did not answer within {TIMEOUT_S:.0f} s") from error
    lines = done.stdout.strip().splitlines()
    if not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        raise UsageError("bundle_invalid", f"the model's process ended with {done.returncode}: {last}")
    answer: dict[str, Any] = json.loads(lines[-1])
    if "error" in answer:
        raise UsageError("bundle_invalid", answer["detail"])
    return answer


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
