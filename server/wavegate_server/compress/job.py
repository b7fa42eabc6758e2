"""The compression job: try recipes on a bundle, measure each against the original, choose, write the result bundle.

    original -> fp32 baseline -> recipe candidates (a subprocess each) -> scores, race -> verdicts -> choice -> bundle

The original is always a legal answer: when no candidate meets the budget, nothing is written and the verdict says so.
Not here yet: sensitivity repair, structural steps, the device round.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from wavegate_server.adapters.bundles import SPEC_FILE, Bundle, write_bundle
from wavegate_server.adapters.objects import file_sha256
from wavegate_server.compress.measure import Latency, Score, race, score_model
from wavegate_server.compress.recipes import recipes_for
from wavegate_server.core.budget import BudgetItem, Measured, Verdict, judge
from wavegate_server.core.bundle_spec import artifact_roles
from wavegate_server.core.paired import paired_drop
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Comparison

__all__ = ["Candidate", "JobResult", "Progress", "run_job"]

Progress = Callable[[str], None]
_RECIPE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tried recipe. `offered` is False with a `reason` when it must not be chosen."""

    recipe: str
    path: Path | None
    measured: Measured | None
    cpu_ms: float
    agreement: float
    verdicts: list[Verdict]
    offered: bool
    reason: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """What came out. `chosen` is None when no candidate met the budget."""

    candidates: list[Candidate]
    chosen: Candidate | None
    comparison: list[Comparison]
    samples: int


@dataclass(frozen=True, slots=True)
class _Baseline:
    path: Path
    score: Score
    samples: Path


def run_job(bundle: Bundle, budget: Sequence[BudgetItem], out: Path, progress: Progress = lambda _: None) -> JobResult:
    """Compress `bundle` within `budget`; writes the result bundle to `out` when a candidate meets every item.

    Raises:
        UsageError: `bundle_invalid` (the original itself does not run), `conflict` (`out` is not empty).
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError("conflict", f"{out} is not empty; name a new directory")
    with tempfile.TemporaryDirectory(prefix="wavegate-compress-") as scratch:
        base = _baseline(bundle, Path(scratch), progress)
        made = {name: _make(name, base.path, Path(scratch), progress) for name in recipes_for(bundle.spec.family)}
        paths = {name: path for name, path in made.items() if isinstance(path, Path)}
        progress("racing the candidates against the original")
        latency = race({"original": base.path, **paths}, base.samples, bundle.spec, bundle.directory)
        candidates = [_judge(name, made[name], base, bundle, latency, budget) for name in made]
        chosen = min((c for c in candidates if c.offered), key=_cost, default=None)
        table = _comparison(base, chosen, latency) if chosen else []
        if chosen:
            progress("writing the result bundle")
            _write(bundle, chosen, table, out)
        return JobResult(candidates, chosen, table, len(base.score.scores))


def _baseline(bundle: Bundle, scratch: Path, progress: Progress) -> _Baseline:
    from wavegate_server.adapters import onnx_files

    progress("measuring the original")
    path = scratch / "original.onnx"
    onnx_files.prepare(bundle.model_path, path, stored=bundle.spec.stored)
    samples = bundle.path((bundle.spec.eval or bundle.spec.golden).file)
    return _Baseline(path, score_model(path, samples, bundle.spec, bundle.directory), samples)


def _make(recipe: str, source: Path, scratch: Path, progress: Progress) -> Path | str:
    """The candidate's file, or why there is none."""
    progress(f"quantising: {recipe}")
    target = scratch / f"{recipe}.onnx"
    command = [sys.executable, "-m", "wavegate_server.compress.recipes", recipe, str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RECIPE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"the recipe did not finish within {_RECIPE_TIMEOUT_S:.0f} s"
    if done.returncode or not target.is_file():
        return f"the recipe failed: {(done.stderr.strip().splitlines() or ['no output'])[-1][:200]}"
    return target


def _judge(
    recipe: str,
    made: Path | str,
    base: _Baseline,
    bundle: Bundle,
    latency: dict[str, Latency],
    budget: Sequence[BudgetItem],
) -> Candidate:
    if isinstance(made, str):
        return Candidate(recipe, None, None, 0.0, 0.0, [], offered=False, reason=made)
    try:
        score = score_model(made, base.samples, bundle.spec, bundle.directory)
    except UsageError as error:
        return Candidate(recipe, made, None, 0.0, 0.0, [], offered=False, reason=error.detail)
    measured = Measured(
        size_bytes=made.stat().st_size,
        size_before=base.path.stat().st_size,
        p50_ms=latency[recipe].p50_ms,
        p50_before=latency["original"].p50_ms,
        p95_ms=latency[recipe].p95_ms,
        peak_mb=score.peak_rss_mb,
        metric=bundle.spec.metric,
        value=score.value,
        value_before=base.score.value,
        drop=paired_drop(bundle.spec.metric, base.score.scores, score.scores),
    )
    agreement = sum(a == b for a, b in zip(base.score.top1, score.top1, strict=True)) / len(score.top1)
    verdicts = judge(budget, measured)
    reason = _refusal(score, measured, verdicts)
    return Candidate(
        recipe, made, measured, latency[recipe].cpu_ms, agreement, verdicts, offered=not reason, reason=reason
    )


def _refusal(score: Score, measured: Measured, verdicts: Sequence[Verdict]) -> str:
    if not score.finite:
        return "an output is not finite"
    missed = [verdict.item for verdict in verdicts if not verdict.met]
    if missed:
        return f"misses {', '.join(missed)}"
    if measured.p50_ms > measured.p50_before and measured.size_bytes >= measured.size_before:
        return "neither smaller nor faster than the original"
    return ""


def _cost(candidate: Candidate) -> float:
    """Smaller is better: latency first, then size, as shares of the original."""
    measured = candidate.measured
    if measured is None:
        return float("inf")
    return measured.p50_ms / measured.p50_before + measured.size_bytes / measured.size_before


def _comparison(base: _Baseline, chosen: Candidate, latency: dict[str, Latency]) -> list[Comparison]:
    """The five rows that go signed into the manifest."""
    measured = chosen.measured
    if measured is None:
        return []
    old = latency["original"]
    metric = measured.metric
    rows = [
        ("size", "MB", measured.size_before / 1e6, measured.size_bytes / 1e6),
        ("latency p50", "ms", old.p50_ms, measured.p50_ms),
        ("peak memory", "MB", base.score.peak_rss_mb, measured.peak_mb),
        ("CPU time per inference", "ms", old.cpu_ms, chosen.cpu_ms),
        (metric.name, metric.unit, measured.value_before, measured.value),
    ]
    return [Comparison(name=name, unit=unit, before=before, after=after) for name, unit, before, after in rows]


def _write(bundle: Bundle, chosen: Candidate, comparison: list[Comparison], out: Path) -> None:
    if chosen.path is None:
        raise AssertionError("an offered candidate has a file")
    spec = bundle.spec
    document = yaml.safe_load((bundle.directory / SPEC_FILE).read_text(encoding="utf-8"))
    document["stored"] = "float32"
    document["recipe"] = chosen.recipe
    document["parent"] = {"sha256": file_sha256(bundle.model_path)}
    document["comparison"] = [msgspec.to_builtins(row) for row in comparison]
    names = set(artifact_roles(spec)) | {entry.file for entry in (spec.calib, spec.eval) if entry}
    files = {name: chosen.path if name == spec.model_file else bundle.path(name) for name in sorted(names)}
    write_bundle(out, document, files)
