"""One candidate's way through a job: made, compared on the samples that choose, judged on the samples that report.

Every step is a cached subprocess; what goes wrong in one becomes the candidate's reason.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from wavegate_server.adapters.files.bundles import Bundle
from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.compress.measure.run import Score, as_score, probe
from wavegate_server.compress.process.children import TIMEOUT_S, run_child
from wavegate_server.compress.process.step_cache import Cache
from wavegate_server.compress.search.splits import Split, Splits
from wavegate_shared.errors import UsageError

__all__ = ["CALIBRATION", "Against", "Made", "Preprocessing", "Scored", "Workbench", "against"]

CALIBRATION = 64
"""Samples that static recipes are calibrated with; more gave nothing, see docs/compression-measurements.md."""
_PACKAGE = "wavegate_server.compress.onnx_graph"
_CLOSE = 0.05
_THREADS = min(4, os.cpu_count() or 1)
"""For scoring, where only the answers count; races have one."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What lies in front of a graph: how samples become its inputs.

    Attributes:
        directory: where the operations find their files.
        pre: the declared operations.
        files: files by name that differ from the bundle's own; the result bundle gets these.
        key: hash of all of it.
    """

    directory: Path
    pre: list[dict[str, Any]]
    files: dict[str, Path] = field(default_factory=dict)
    key: str = ""

    def place(self) -> dict[str, Any]:
        """The part of a subprocess's job that says so."""
        return {"directory": str(self.directory), "pre": self.pre}


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate's file.

    Attributes:
        plan: the precision of each weighted node.
        float_nodes: nodes kept float by repair.
        front: its own pre-processing; None for the bundle's.
    """

    name: str
    path: Path
    digest: str
    notes: list[str] = field(default_factory=list)
    plan: dict[str, str] = field(default_factory=dict)
    float_nodes: list[str] = field(default_factory=list)
    front: Preprocessing | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A model's results on one split. `outputs` is an npz of all its outputs."""

    score: Score
    outputs: Path


@dataclass(frozen=True, slots=True)
class Against:
    """A candidate beside the original on unlabelled samples.

    Attributes:
        agreement: share of samples with the same answer: same class, or within 5 % for outputs that are no classes.
        error: size of the difference of outputs over the size of the original's.
        mean_difference: mean absolute difference of outputs.
    """

    agreement: float
    error: float
    mean_difference: float


class Workbench:
    """The cached steps on one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        splits: Splits,
        cache: Cache,
        left_s: Callable[[], float],
        *,
        calibration: int = CALIBRATION,
    ) -> None:
        """`left_s` gives the seconds a step may still take; `calibration`: how many samples calibrate static recipes."""
        self._calibration = calibration
        self.bundle = bundle
        self.splits = splits
        self.cache = cache
        self._left_s = left_s
        pre = json.dumps(bundle.spec.pre, sort_keys=True, default=str)
        vocabularies = [bundle.spec.files[str(step["vocab"])] for step in bundle.spec.pre if "vocab" in step]
        key = hashlib.sha256(json.dumps([pre, vocabularies]).encode()).hexdigest()
        self.front = Preprocessing(bundle.directory, bundle.spec.pre, key=key)

    def timeout_s(self) -> float:
        """Limit of the next step.

        Raises:
            UsageError: `bundle_invalid` when no time is left.
        """
        left = self._left_s()
        if left <= 1:
            raise UsageError("bundle_invalid", "not tried: the time of the job was up")
        return min(TIMEOUT_S, left)

    def original(self) -> Made:
        """The original as devices would run it."""
        from wavegate_server.adapters.files import onnx_files

        bundle, name = self.bundle, "original.onnx"
        digest = file_sha256(bundle.model_path)

        def make(folder: Path) -> dict[str, Any]:
            onnx_files.prepare(bundle.model_path, folder / name, stored=bundle.spec.stored)
            return {"sha256": file_sha256(folder / name)}

        folder, answer = self.cache.step("original", {"model": digest, "stored": bundle.spec.stored}, make)
        return Made("original", folder / name, answer["sha256"])

    def base(self, original: Made) -> Made:
        """The cleaned graph that recipes start from, of the original or of a student."""
        choose, front = self.splits.choose, self.front_of(original)

        def make(folder: Path) -> dict[str, Any]:
            feed = folder / "feed.npz"
            samples = self._samples(choose, front)
            probe({"kind": "feed", **samples, "target": str(feed)}, timeout_s=self.timeout_s())
            job = {"source": str(original.path), "target": str(folder / "base.onnx"), "stored": "float32"}
            answer = run_child(f"{_PACKAGE}.clean", {**job, "probe": str(feed)}, timeout_s=self.timeout_s())
            return {**answer, "sha256": file_sha256(folder / "base.onnx")}

        parts = {"model": original.digest, "choose": choose.digest, "pre": front.key}
        folder, answer = self.cache.step("base", {**parts, "slim": _has_slim()}, make)
        return Made("base", folder / "base.onnx", answer["sha256"], answer["notes"], front=original.front)

    def make(self, recipe: str, base: Made, float_nodes: list[str], name: str, whole: Made | None = None) -> Made:
        """The candidate of a recipe, with these nodes left float. Raises UsageError: why there is none.

        `whole`: the same recipe with none left float, whose calibrated ranges are used again.
        """
        calib, front = self.splits.calib, self.front_of(base)
        job = {"recipe": recipe, "float_nodes": float_nodes, "samples": self._calibration}

        def make(folder: Path) -> dict[str, Any]:
            more = {"source": str(base.path), "target": str(folder / "model.onnx"), "calib": str(calib.file)}
            ranges = (whole.path.parent if whole else folder) / "ranges.json"
            place = {**front.place(), "rows": calib.rows, "ranges": str(ranges)}
            answer = run_child(f"{_PACKAGE}.quantise", {**job, **more, **place}, timeout_s=self.timeout_s())
            return {**answer, "sha256": file_sha256(folder / "model.onnx")}

        parts = {"base": base.digest, **job, "calib": calib.digest, "rows": calib.rows, "pre": front.key}
        folder, answer = self.cache.step("recipe", parts, make)
        file, notes = folder / "model.onnx", answer["notes"]
        return Made(name, file, answer["sha256"], notes, answer["plan"], float_nodes, base.front)

    def scan(self, recipe: str, base: Made, seconds: float) -> list[dict[str, Any]]:
        """Blocks ranked by how much leaving them float helps."""
        calib, choose = self.splits.calib, self.splits.choose
        files = {"calib": str(calib.file), "choose": str(choose.file)}
        rows = {"calib_rows": calib.rows, "choose_rows": choose.rows}
        front = self.front_of(base)

        def make(_: Path) -> dict[str, Any]:
            job = {"recipe": recipe, "source": str(base.path), "seconds": seconds, **files, **rows, **front.place()}
            return run_child(f"{_PACKAGE}.sensitivity_scan", job, timeout_s=min(self.timeout_s(), 2 * seconds + 30))

        parts = {"recipe": recipe, "base": base.digest, "calib": calib.digest, "choose": choose.digest, **rows}
        _, answer = self.cache.step("scan", {**parts, "pre": front.key}, make)
        ranking: list[dict[str, Any]] = answer["ranking"]
        return ranking

    def score(self, made: Made, split: Split) -> Scored:
        """The model on a split."""
        metric, front = msgspec.to_builtins(self.bundle.spec.metric), self.front_of(made)

        def make(folder: Path) -> dict[str, Any]:
            job = {"kind": "score", "model": str(made.path), "metric": metric, **self._samples(split, front)}
            job.update(threads=_THREADS, post=self.bundle.spec.post)
            return probe({**job, "outputs": str(folder / "outputs.npz")}, timeout_s=self.timeout_s())

        parts = {"model": made.digest, "split": split.digest, "rows": split.rows, "metric": metric}
        folder, answer = self.cache.step("score", {**parts, "pre": front.key, "post": self.bundle.spec.post}, make)
        return Scored(as_score(answer), folder / "outputs.npz")

    def front_of(self, made: Made) -> Preprocessing:
        """How samples become the inputs of this graph."""
        return made.front or self.front

    def _samples(self, split: Split, front: Preprocessing) -> dict[str, Any]:
        return {"samples": str(split.file), "rows": split.rows, **front.place()}


def _has_slim() -> bool:
    from importlib.util import find_spec

    return find_spec("onnxslim") is not None


def against(original: Scored, candidate: Scored, *, classes: bool) -> Against:
    """How far the candidate's outputs are from the original's."""
    with np.load(original.outputs, allow_pickle=False) as a, np.load(candidate.outputs, allow_pickle=False) as b:
        if a["outputs"].shape != b["outputs"].shape or (a["lengths"] != b["lengths"]).any():
            return Against(0.0, float("inf"), float("inf"))
        old, new = a["outputs"], b["outputs"]
    off = np.nan_to_num(new - old, nan=0.0, posinf=1e30, neginf=1e30)
    size = np.nan_to_num(old, nan=0.0)
    norms = np.maximum(np.sqrt((size**2).sum(axis=1)), 1e-12)
    if classes:
        same = np.array(original.score.top1) == np.array(candidate.score.top1)
    else:
        same = np.sqrt((off**2).sum(axis=1)) <= _CLOSE * np.maximum(norms, norms.mean())
    error = float(np.sqrt((off**2).sum() / max((size**2).sum(), 1e-12)))
    return Against(float(same.mean()), error, float(np.abs(off).mean()))
