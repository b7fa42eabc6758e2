"""Smaller inputs: the same weights on smaller images or shorter texts, where the bundle's declared pre-processing can say so.

A step `resize` may ask for a smaller picture, `wordpiece` for fewer tokens. The graph has to take the smaller input; whether it
does, and what it costs, is found by running it. Every smaller input is a candidate of its own, and the base of the recipe that
did best on the original.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.compress.measure.samples import load_samples
from wavegate_server.compress.search.candidates import Search, Trial
from wavegate_server.compress.search.workbench import Made, Preprocessing
from wavegate_server.core.compress.recipes import named
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = ["InputSweep", "Smaller", "smaller_inputs"]

_IMAGE_SHARES = (0.875, 0.75, 0.625)
_TEXT_SHARES = (0.75, 0.5)
_TOKENS = 16  # texts are padded to multiples of this
_SMALL_IMAGE, _COARSE, _FINE = 64, 16, 4
_LEAST_SIDE = 8
_LEAST_SECONDS = 20.0
_MEASURED_ROWS = 200


@dataclass(frozen=True, slots=True)
class Smaller:
    """A smaller input.

    Attributes:
        name: what reports call it, as "input192x192" or "tokens32".
        pre: the declared operations with the smaller size.
        sides: height and width the graph gets, or None for texts.
        input: the graph's input that has them.
    """

    name: str
    pre: list[dict[str, Any]]
    sides: tuple[int, int] | None = None
    input: str = ""


def smaller_inputs(pre: Sequence[Mapping[str, Any]], tokens: int) -> list[Smaller]:
    """What the declared operations allow, large to small. Pure.

    Args:
        pre: the bundle's operations.
        tokens: longest text there is, in tokens; 0 where there are no texts. A limit at or above it would change nothing.
    """
    return [*_smaller_images(pre), *_shorter_texts(pre, tokens)]


def _smaller_images(pre: Sequence[Mapping[str, Any]]) -> list[Smaller]:
    resizes = [step for step in pre if step["op"] == "resize"]
    sized = [step for step in pre if step["op"] in ("resize", "crop")]
    if len(resizes) != 1 or sized[0] is not resizes[0]:
        return []
    made: dict[tuple[int, int], Smaller] = {}
    height, width = sized[-1]["size"]
    for share in _IMAGE_SHARES:
        sides = _rounded(height, share), _rounded(width, share)
        if min(sides) < _LEAST_SIDE or sides >= (height, width) or sides in made:
            continue
        factors = sides[0] / height, sides[1] / width
        steps = [_scaled(step, factors) if any(step is each for each in sized) else dict(step) for step in pre]
        made[sides] = Smaller(f"input{sides[0]}x{sides[1]}", steps, sides, _result(pre, str(sized[-1]["input"])))
    return list(made.values())


def _rounded(side: int, share: float) -> int:
    step = _COARSE if side >= _SMALL_IMAGE else _FINE
    return round(side * share / step) * step


def _scaled(step: Mapping[str, Any], factors: tuple[float, float]) -> dict[str, Any]:
    return {**step, "size": [round(side * factor) for side, factor in zip(step["size"], factors, strict=True)]}


def _result(pre: Sequence[Mapping[str, Any]], name: str) -> str:
    """The name under which an array arrives at the graph."""
    for step in pre:
        if step.get("input") == name and step.get("output"):
            name = str(step["output"])
    return name


def _shorter_texts(pre: Sequence[Mapping[str, Any]], tokens: int) -> list[Smaller]:
    made = []
    for at, step in enumerate(pre):
        if step["op"] != "wordpiece":
            continue
        longest = min(tokens, int(step["max_length"]))
        limits = sorted({-(-int(longest * share) // _TOKENS) * _TOKENS for share in _TEXT_SHARES}, reverse=True)
        for limit in limits:
            if 0 < limit < longest:
                steps = [{**each, "max_length": limit} if place == at else dict(each) for place, each in enumerate(pre)]
                made.append(Smaller(f"tokens{limit}", steps))
    return made


class InputSweep:
    """The sweep on one search."""

    def __init__(self, search: Search, left_s: Callable[[], float]) -> None:
        """`left_s`: seconds the sweep may still take."""
        self._search, self._left_s = search, left_s

    def run(self) -> None:
        """Add smaller inputs, each as it is and quantised, to the search's trials; none where the budget is met already."""
        search = self._search
        if any(search.fits(trial) and self._loss(trial) <= search.allowed() for trial in search.trials):
            return
        added: list[Trial] = []
        for option in smaller_inputs(search.bench.bundle.spec.pre, self._tokens()):
            if self._left_s() < _LEAST_SECONDS:
                search.notes.append(Sentence("note.no_time", name=option.name))
                break
            family = self._one(option)
            added += family
            if self._loss(family[0]) > search.allowed():
                break  # a still smaller one loses more
        if added:
            search.first_race(added)
            search.trials += added

    def _loss(self, trial: Trial) -> float:
        """Expected loss: without labels `drop` counts every changed answer as wrong, and about half of them are."""
        labelled = self._search.bench.splits.choose.labelled or not self._search.classes
        return trial.drop if labelled else trial.drop / 2

    def _tokens(self) -> int:
        """Tokens of the longest of some texts; 0 where the bundle has none."""
        bench = self._search.bench
        step = next((step for step in bench.bundle.spec.pre if step["op"] == "wordpiece"), None)
        if step is None:
            return 0
        choose = bench.splits.choose
        samples = load_samples(choose.file, [step], bench.bundle.directory)
        name = next(iter(step["outputs"]))
        return max(int(feed[name].shape[1]) for feed in samples.feeds[:_MEASURED_ROWS])

    def _one(self, option: Smaller) -> list[Trial]:
        search = self._search
        trial = Trial(option.name, "")
        try:
            trial.made = self._made(option)
            family = [search.compared(trial)]
            if not trial.runs or self._loss(trial) > search.allowed():
                return family
            base = search.bench.base(trial.made)
        except UsageError as error:
            trial.made, trial.reason = None, error.detail
            return [trial]
        best = self._best_recipe()
        return [*family, search.attempt(best, base, name=f"{option.name}+{best}")] if best else family

    def _best_recipe(self) -> str:
        """The quantising recipe that did best on the original; empty where none ran."""
        search = self._search
        ran = [t for t in search.trials if t.runs and t.base and t.name == t.recipe and named(t.recipe).faster]
        kept = [trial for trial in ran if self._loss(trial) <= search.allowed()]
        return min(kept or ran, key=search.cost).recipe if ran else ""

    def _made(self, option: Smaller) -> Made:
        """The original's graph behind the smaller input."""
        bench, original = self._search.bench, self._search.original
        pre = [{**step} for step in option.pre]
        key = hashlib.sha256(json.dumps([bench.front.key, pre]).encode()).hexdigest()
        front = Preprocessing(bench.bundle.directory, pre, key=key)
        notes = [f"input made smaller: {option.name}"]
        if option.sides is None:
            return Made(option.name, original.path, original.digest, notes, front=front)

        def make(folder: Path) -> dict[str, Any]:
            target = folder / "model.onnx"
            _with_sides(original.path, target, option)
            return {"sha256": file_sha256(target)}

        parts = {"model": original.digest, "input": option.input, "sides": option.sides}
        folder, answer = bench.cache.step("smaller-input", parts, make)
        return Made(option.name, folder / "model.onnx", answer["sha256"], notes, front=front)


def _with_sides(source: Path, target: Path, option: Smaller) -> None:
    """The graph with other declared sides; whether it computes with them shows when it runs."""
    from wavegate_server.compress.onnx_graph import graphs

    model = graphs.load(source)
    held = next((value for value in model.graph.input if value.name == option.input), None)
    if held is None or option.sides is None or len(held.type.tensor_type.shape.dim) != 4:
        raise UsageError("bundle_invalid", f"the graph has no image input {option.input}")
    for dimension, side in zip(held.type.tensor_type.shape.dim[2:], option.sides, strict=True):
        if dimension.HasField("dim_value"):
            dimension.dim_value = side
    graphs.strip_shapes(model)
    graphs.save(model, target)
