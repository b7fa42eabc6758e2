"""The parent's side of pruning and distilling: cached subprocess steps on a bundle that has its torch module and a train set.

Torch is never imported here. A student that was finished is found again by the hash of all it depends on, so a job that was
killed goes on behind it. A subprocess that fails, hangs or is killed raises UsageError: a row in the report.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.compress.process.children import run_child
from wavegate_server.compress.search.workbench import Made, Preprocessing, Scored, Workbench
from wavegate_server.core.compress.structures import Structure

__all__ = ["DistilSteps", "Taught", "Teaching"]

_MODULE = "wavegate_server.compress.distil.program"
_MEMORY_BYTES = 12 << 30
"""Of address space: torch maps far more than it uses."""
_SEED = 13
_START_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Teaching:
    """How students are taught. Attributes: temperature, alpha (the teacher's share in the loss), steps (None: by the data)."""

    temperature: float = 5.0
    alpha: float = 0.7
    steps: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Taught:
    """A student. Attributes: made, its fp32 graph; answer, what the subprocess said about its training."""

    made: Made
    answer: dict[str, Any]

    def words(self, *, points: bool) -> str:
        """How it was made, for the report."""
        a = self.answer
        ended = {"steps": "all steps done", "budget": "stopped early, within the budget", "time": "its time was up"}
        before, after = (_points(a[key], points=points) for key in ("drop_untrained", "drop"))
        return (
            f"{a['parameters'] / 1e6:.2f} of {a['parameters_before'] / 1e6:.2f} M parameters; drop {before} as cut, {after} after"
            f" {a['steps']} steps ({ended[a['stopped']]}), {a['train_seconds']:.0f} s, seed {a['seed']}"
        )


class DistilSteps:
    """The steps on one bundle."""

    def __init__(self, bench: Workbench, original: Made, before: Scored, teaching: Teaching, *, classes: bool) -> None:
        """`before`: the original on the samples that choose; `classes`: whether its outputs are scores of classes."""
        spec = bench.bundle.spec
        if spec.source is None or spec.train is None:
            raise AssertionError("only bundles with source and train can be distilled")
        self._bench, self._original, self._before, self._teaching = bench, original, before, teaching
        self._classes = classes
        self._train = spec.train.file
        self._inputs: list[str] = []
        files = {name: digest for name, digest in sorted(spec.files.items()) if name.startswith("source/")}
        self._key = {
            "source": msgspec.to_builtins(spec.source),
            "files": files,
            "train": spec.files[self._train],
            "pre": bench.front.key,
            "torch": _version("torch"),
        }

    def propose(self) -> list[Structure]:
        """Structures worth a try, light to heavy."""
        texts = [str(self._bench.bundle.path(self._train)), str(self._bench.splits.calib.file)]

        def make(_: Path) -> dict[str, Any]:
            return self._run({"kind": "propose", "texts": texts}, self._bench.timeout_s())

        digest = self._bench.splits.calib.digest
        _, answer = self._bench.cache.step("structures", {**self._key, "texts": digest}, make)
        return [Structure(**each) for each in answer["structures"]]

    def teach(self, seconds: float) -> Path:
        """The original's answers on the train set, computed once; `seconds` is its time limit."""

        def make(folder: Path) -> dict[str, Any]:
            job = {"kind": "teacher", "target": str(folder / "teacher.npy"), **self._choosing()}
            return self._run(job, seconds)

        parts = {**self._key, "model": self._original.digest, "choose": self._bench.splits.choose.digest}
        folder, _ = self._bench.cache.step("teacher", parts, make)
        return folder / "teacher.npy"

    def student(
        self, structure: Structure, teacher: Path, goal: float, seconds: float, tell: Callable[[str], None]
    ) -> Taught:
        """A distilled student of this structure.

        Args:
            structure: from `propose`.
            teacher: from `teach`.
            goal: loss of the metric at which its training may stop early.
            seconds: time limit of the training.
            tell: told how far it is.
        """
        bench, choose, metric = self._bench, self._bench.splits.choose, self._bench.bundle.spec.metric
        decoded = any(
            step.get("op") == "ctc" for step in bench.bundle.spec.post
        )  # the metric is not of the outputs then
        value = self._before.score.value if choose.labelled and not decoded else None
        taught = {**dataclasses.asdict(self._teaching), "seed": _SEED, "structure": dataclasses.asdict(structure)}
        texts = [str(bench.bundle.path(self._train)), str(bench.splits.calib.file)]
        points = metric.unit == "share"

        def make(folder: Path) -> dict[str, Any]:
            job = {
                "kind": "student",
                **taught,
                "teacher": str(teacher),
                "seconds": seconds,
                "goal": goal,
                "texts": texts,
            }
            more = {"before_value": value, "classes": self._classes, "metric": msgspec.to_builtins(metric)}
            place = {"graph": str(self._original.path), "target": str(folder)}
            answer = self._run(
                {**job, **self._choosing(), **more, **place},
                seconds + _START_S,
                lambda at: tell(_told(at, points=points)),
            )
            return {**answer, "sha256": file_sha256(folder / "student.onnx")}

        parts = {**self._key, **taught, "choose": choose.digest, "rows": choose.rows, "goal": round(goal, 6)}
        folder, answer = bench.cache.step("student", parts, make)
        front = self._front(folder) if answer["vocabulary"] else None
        return Taught(Made(structure.name, folder / "student.onnx", answer["sha256"], front=front), answer)

    def _choosing(self) -> dict[str, Any]:
        choose = self._bench.splits.choose
        return {"choose": str(choose.file), "choose_rows": choose.rows, "before": str(self._before.outputs)}

    def _front(self, folder: Path) -> Preprocessing:
        """The bundle's own operations with the student's smaller vocabulary."""
        pre = self._bench.bundle.spec.pre
        files = {str(step["vocab"]): folder / str(step["vocab"]) for step in pre if "vocab" in step}
        digests = [file_sha256(path) for path in files.values()]
        key = hashlib.sha256(json.dumps([self._bench.front.key, digests]).encode()).hexdigest()
        return Preprocessing(folder, pre, files, key)

    def _run(
        self, job: dict[str, Any], timeout_s: float, tell: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        bundle, threads = self._bench.bundle, os.cpu_count() or 1
        common = {"source": msgspec.to_builtins(bundle.spec.source), "train": self._train, "threads": threads}
        place = {**self._bench.front.place(), "inputs": self._names()}
        limits = {"memory_bytes": _MEMORY_BYTES, "threads": threads}
        return run_child(_MODULE, {**job, **common, **place}, timeout_s=timeout_s, listen=tell, **limits)

    def _names(self) -> list[str]:
        if not self._inputs:
            from wavegate_server.compress.onnx_graph.inspect import inspect_file

            self._inputs = [tensor.name for tensor in inspect_file(self._original.path).inputs]
        return self._inputs


def _told(at: dict[str, Any], *, points: bool) -> str:
    best = "" if at["best"] is None else f", best drop {_points(at['best'], points=points)}"
    return f"epoch {at['epoch']}, step {at['step']} of {at['steps']}, loss {at['loss']:.4f}{best}"


def _points(value: float, *, points: bool) -> str:
    return f"{value * 100:.2f} pt" if points else f"{value:.4g}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
