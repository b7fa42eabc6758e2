"""The bundle's README, with every figure filled in from the measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Figures", "Report", "figures", "readme"]

BOUNDS_C = (0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """Errors of one method in degrees Celsius; `within` are the shares inside `BOUNDS_C`."""

    mean: float
    median: float
    p95: float
    within: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the README states as a number.

    Attributes:
        overall: (method, figures) on the evaluation recordings.
        by_tau: (recordings, their number, (method, mean error) for each method).
        golden: Error on the golden set.
        ceiling: The golden ceiling in `bundle.yaml`.
        parameters: Of the network.
        model_bytes: Size of `model.onnx`.
        training: Recordings it was trained on.
        samples: Evaluation recordings.
    """

    overall: list[tuple[str, Figures]]
    by_tau: list[tuple[str, int, list[float]]]
    golden: float
    ceiling: float
    parameters: int
    model_bytes: int
    training: int
    samples: int


def figures(said: NDArray[np.float32], truth: NDArray[np.float32]) -> Figures:
    """Figures of (n,) answers against (n,) true values."""
    error = np.abs(said.astype(np.float64) - truth)
    within = tuple(float(np.mean(error <= bound)) for bound in BOUNDS_C)
    return Figures(float(error.mean()), float(np.median(error)), float(np.quantile(error, 0.95)), within)


def readme(report: Report) -> str:
    """The text of the bundle's README.md."""
    net = report.overall[0][1]
    return f"""# signal-inversion

A parcel is put into a cooled compartment and the door closes. At which temperature will the compartment
settle? The network answers after ten and a half minutes, from 64 readings of a slow, noisy, stepped sensor,
though settling takes up to an hour. Written by `make.py` in the folder above; do not edit.

**All data come from a simulator.** Its equations are in `simulator.py` beside this folder: Newton's law of
cooling, a first-order lag of the sensor in series, noise of 0.03 to 0.15 degrees, a drift, and steps of 0.0625
degrees. The ranges of its parameters are chosen, not measured. The figures say how well that simulator is
inverted, not how well a real locker would be.

## Figures

{report.samples:,} recordings never used in training; errors in degrees Celsius.

| method | mean error | median | 95 % below | within 0.5 | within 1.0 |
|---|---|---|---|---|---|
{_rows(report.overall)}

The least-squares fit knows the simulator's exact equations and the true ranges of the parameters
(`scipy.optimize.least_squares`, bounded, four parameters). What it does not use is how likely a curve is: with noise
and a drift, many settled temperatures fit the first minutes equally well, and it picks one. The network, trained
on the same ranges, answers near the middle of them: better where a slow compartment leaves much open, no better
where a fast one has nearly settled. That advantage lasts only while the ranges hold.

By the compartment's time constant, mean error:

| time constant | recordings | {" | ".join(name for name, _ in report.overall)} |
|---|---|---|---|
{_tau_rows(report.by_tau)}

What a machine checks (`tests/deploy` runs the model on `eval.npz` again):

```yaml
figures:
  file: eval.npz
  samples: {report.samples}
  mean_absolute_error: {net.mean:.4f}
  error_bound: {{value: {net.within[0]:.4f}, bound: {BOUNDS_C[0]}, relative: false}}
```

{_how_made(report)}"""


def _how_made(report: Report) -> str:
    return f"""\
## Shape and size

{report.parameters:,} parameters in four dense layers, {report.model_bytes:,} bytes, opset 17, fp32. Trained on
{report.training:,} simulated recordings. The metric is an error: less is better, so the golden set has a
ceiling and the gates turn round.

## Golden, calibration and evaluation set

`golden.npz`: 200 recordings, half of them the hardest tenth of a pool (the network's largest errors), half drawn at
random; the error is {report.golden:.3f} there, the ceiling {report.ceiling:.3f}. `calib.npz`: 128 recordings without labels.
`eval.npz`: the {report.samples:,} recordings of the tables.

@COMPRESSED@

## Licence

Apache-2.0; no outside data.
"""


def _rows(rows: list[tuple[str, Figures]]) -> str:
    return "\n".join(
        f"| {name} | {got.mean:.3f} | {got.median:.3f} | {got.p95:.2f} | "
        + " | ".join(f"{100 * share:.1f} %" for share in got.within)
        + " |"
        for name, got in rows
    )


def _tau_rows(rows: list[tuple[str, int, list[float]]]) -> str:
    return "\n".join(
        f"| {name} | {count:,} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
        for name, count, values in rows
    )
