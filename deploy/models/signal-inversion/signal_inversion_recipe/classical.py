"""The classical way: fit the simulator's own equations to each recording by least squares, within the true ranges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from signal_inversion_recipe.simulator import RANGES, READINGS, response

__all__ = ["fit_ends"]

_ORDER = ("end", "start", "tau", "tau_s")


def fit_ends(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) settled temperatures by bounded non-linear least squares over (end, start, tau, tau_s).

    Args:
        signal: (n, READINGS) recordings.
    """
    if signal.shape[1] != READINGS:
        raise ValueError(f"a recording has {READINGS} readings")
    lower, upper = (np.array([RANGES[name][side] for name in _ORDER]) for side in (0, 1))
    return np.array([_fit(row.astype(np.float64), lower, upper) for row in signal], np.float32)


def _fit(row: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> float:
    def residual(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        exact = response(*(parameters[at : at + 1] for at in range(len(_ORDER))))[0]
        return np.asarray(exact - row)

    guess = np.array([row[-1] - 0.5 * (row[0] - row[-1]), row[0], 600.0, 30.0])
    inside = np.clip(guess, lower + 1e-3, upper - 1e-3)
    found = least_squares(residual, inside, bounds=(lower, upper), x_scale=(1.0, 1.0, 300.0, 20.0))
    return float(found.x[0])
