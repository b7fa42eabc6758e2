"""The bundle's README, with every figure filled in from the measurement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wavegate_server.compress.search.report import JobResult

__all__ = ["Report", "readme"]

Accuracies = dict[str, dict[str, float]]
_TEST, _EVAL, _UNSEEN = 10_000, 3_000, 6_700


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the README states as a number.

    Attributes:
        accuracies: of `original` and `result` on `test`, `eval` and `unseen`.
        recipe: what the search chose.
        size: bytes of the original's and the result's model file.
        latency_ms: p50 of both, side by side in one process, one thread.
        agreement: share of the calibration images on which both say the same.
        floor: of the golden set.
        budget: the job's.
        steps: the teacher was trained for.
        seconds: the job took.
        cached: steps of it that an earlier run had finished.
        notes: what the search said of the chosen candidate.
    """

    accuracies: Accuracies
    recipe: str
    size: tuple[int, int]
    latency_ms: tuple[float, float]
    agreement: float
    floor: float
    budget: str
    steps: int
    seconds: float
    cached: int
    notes: list[str]

    @classmethod
    def of(
        cls, result: JobResult, original: Path, target: Path, accuracies: Accuracies, *, budget: str, steps: int
    ) -> Report:
        """From a finished job."""
        import yaml

        chosen = result.chosen
        if chosen is None or chosen.measured is None:
            raise ValueError("the job chose nothing")
        sizes = (original / "model.onnx").stat().st_size, (target / "model.onnx").stat().st_size
        document = yaml.safe_load((target / "bundle.yaml").read_text(encoding="utf-8"))
        return cls(
            accuracies,
            chosen.recipe,
            sizes,
            (chosen.measured.p50_before, chosen.measured.p50_ms),
            chosen.agreement,
            document["golden"]["floor"],
            budget,
            steps,
            result.seconds,
            result.cached_steps,
            chosen.notes,
        )


def readme(report: Report) -> str:
    """The text of the bundle's README.md."""
    before, after = report.accuracies["original"], report.accuracies["result"]
    small, fast = report.size[1] / report.size[0], report.latency_ms[0] / report.latency_ms[1]
    notes = "".join(f"- {note}\n" for note in report.notes)
    return f"""# fashion

Which of ten kinds of clothing is on a 28 x 28 grey photo? {_how(report.recipe)}: what `wavegate compress` made
of the original, which is too large to ship here. Written by `make.py` in the folder above; do not edit.

## Figures

Fashion-MNIST's own 10,000 test photos, and the {_UNSEEN:,} of them that no step of the search has seen:

| | original (fp32) | this model (`{report.recipe}`) | |
|---|---|---|---|
| model file | {report.size[0]:,} bytes | {report.size[1]:,} bytes | {100 * (small - 1):+.1f} % |
| p50 latency, one thread, side by side | {report.latency_ms[0]:.3f} ms | {report.latency_ms[1]:.3f} ms | {fast:.2f} x |
| accuracy, all 10,000 | {100 * before["test"]:.2f} % | {100 * after["test"]:.2f} % | {_points(before, after, "test")} |
| accuracy, {_UNSEEN:,} unseen | {100 * before["unseen"]:.2f} % | {100 * after["unseen"]:.2f} % | {_points(before, after, "unseen")} |

Milliseconds are of the machine it was made on; the ratio is what carries over. Budget: `{report.budget}`; the job took
{report.seconds:.0f} s on two shared cores, {report.cached} of its steps found finished. What the search noted:

{notes}
What a machine checks (`tests/deploy` runs the model on `eval.npz` again):

```yaml
figures:
  file: eval.npz
  samples: {_EVAL}
  accuracy: {after["eval"]:.4f}
```

## Pre-processing

The local API takes UINT8 photos `[n, 28, 28]`, black background 0. The bundle declares what the training script does: divide
by 255, subtract 0.2860, divide by 0.3530, add the channel axis. A test compares the two value by value.

## Sample sets

`golden.npz` 300 and `eval.npz` 3,000 of the test photos, `calib.npz` 1,000 of the training part that no training saw; no
photo is in two of them. The golden floor is {100 * report.floor:.2f} %.

## How it was made

The original: ResNet-18 (11.2 M parameters, 3x3 stem with stride 2), {report.steps} steps of 128 photos with SGD, one cycle, mirrored at
random. The result: `wavegate compress` with 24,000 training photos and the torch module in the bundle.

## Provenance and licence

Photos and labels: Fashion-MNIST, Zalando SE, 2017 (MIT licence), from Debian's package `dataset-fashion-mnist`. Weights: trained
here from random numbers. This bundle: MIT.
"""


def _how(recipe: str) -> str:
    """What the recipe's name says was done to the ResNet-18."""
    structure, _, last = recipe.rpartition("+")
    kept = structure.removeprefix("channels")
    if structure and kept.isdigit():
        return f"A ResNet-18 cut to {kept} % of its channels, distilled from the whole one, then quantised (`{last}`)"
    return f"A ResNet-18, quantised (`{recipe}`)"


def _points(before: dict[str, float], after: dict[str, float], name: str) -> str:
    return f"{100 * (after[name] - before[name]):+.2f} pt"
