"""Running the measuring subprocess with limits, from the parent's side. See `probe` for what is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from wavegate_server.compress.process.children import MEMORY_LIMIT_BYTES, TIMEOUT_S, run_child
from wavegate_server.core.bundle_spec import BundleSpec

__all__ = ["MEMORY_LIMIT_BYTES", "TIMEOUT_S", "Latency", "Score", "as_score", "probe", "race", "score_model"]


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

    def scaled(self, factor: float) -> "Latency":
        """The same figures on a clock that runs `factor` times as fast."""
        return Latency(self.p50_ms * factor, self.p95_ms * factor, self.cpu_ms * factor)


def score_model(
    model: Path,
    samples: Path,
    spec: BundleSpec,
    directory: Path,
    *,
    rows: Sequence[int] | None = None,
    outputs: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Score:
    """Score `model` on an npz of samples, in a process of its own; `rows` takes some of them, `outputs` keeps the outputs.

    Raises:
        UsageError: `bundle_invalid` when it does not load, crashes, hangs, or the samples do not fit.
    """
    job = {"kind": "score", "model": str(model), "samples": str(samples), "metric": msgspec.to_builtins(spec.metric)}
    more = {"rows": None if rows is None else list(rows), "outputs": None if outputs is None else str(outputs)}
    return as_score(
        probe({**job, **more, "directory": str(directory), "pre": spec.pre, "post": spec.post}, timeout_s=timeout_s)
    )


def as_score(answer: dict[str, Any]) -> Score:
    """The probe's answer as a record."""
    return Score(
        value=answer["value"],
        scores=answer["scores"],
        top1=answer["top1"],
        finite=answer["outputs_finite"],
        load_ms=answer["load_ms"],
        peak_rss_mb=answer["peak_rss_mb"],
    )


def race(
    models: dict[str, Path],
    samples: Path,
    spec: BundleSpec,
    directory: Path,
    *,
    rounds: int = 12,
    seconds: float = 600.0,
    fronts: dict[str, dict[str, Any]] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Latency]:
    """Latency of several models on the same inputs, interleaved in one process. Raises like `score_model`.

    Args:
        models: files by name.
        samples: npz of inputs.
        spec: for its pre-processing.
        directory: where that finds its files.
        rounds: how often each input goes through each model.
        seconds: no further round begins after that; two are always done.
        fronts: "directory" and "pre" of models that have their own.
        timeout_s: time limit.
    """
    paths = {name: str(path) for name, path in models.items()}
    job = {"kind": "race", "models": paths, "samples": str(samples), "rounds": rounds, "seconds": seconds}
    job["fronts"] = fronts or {}
    answer = probe({**job, "directory": str(directory), "pre": spec.pre}, timeout_s=timeout_s)
    return {name: Latency(**answer[name]) for name in models}


def probe(job: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """One job of the measuring subprocess. Raises like `score_model`."""
    return run_child("wavegate_server.compress.measure.probe", job, timeout_s=timeout_s)
