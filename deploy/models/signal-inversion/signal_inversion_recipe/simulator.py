"""A cooled locker compartment and its temperature sensor, simulated.

A parcel of unknown warmth is put in and the door closes. From then on the sensor is
read every ten seconds. What is sought is the temperature at which the compartment
will settle, from the first minutes alone, long before it gets there.

    air:      dT/dt  = (T_end - T) / tau            Newton's law of cooling, lumped capacity
    sensor:   dTm/dt = (T - Tm) / tau_s             first-order lag of the sensor's body
    solution: Tm(t)  = T_end + (T_0 - T_end) * (tau * exp(-t / tau) - tau_s * exp(-t / tau_s)) / (tau - tau_s)
    reading:  round((Tm + drift * t + noise) / STEP_C) * STEP_C

for Tm(0) = T(0) = T_0. Source: Incropera and DeWitt, Fundamentals of Heat and Mass
Transfer, chapter 5 (lumped capacitance); the second lag in series is the textbook
second-order system. The step of 0.0625 degrees is that of common 12-bit digital
sensors. The ranges of the parameters are chosen, not measured on a real locker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["INTERVAL_S", "RANGES", "READINGS", "Recording", "record", "response"]

READINGS = 64
INTERVAL_S = 10.0
STEP_C = 0.0625
NOISE_C = (0.03, 0.15)
DRIFT_C_PER_WINDOW = 0.15  # standard deviation of the drift at the window's end

RANGES = {"end": (-2.0, 12.0), "start": (8.0, 30.0), "tau": (240.0, 1500.0), "tau_s": (15.0, 60.0)}
"""Ranges, uniform: temperatures in degrees Celsius, time constants in seconds. `start` is also at least 3 above `end`."""

_MIN_FALL_C = 3.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Simulated openings of the door.

    Attributes:
        signal: (n, READINGS) float32, degrees Celsius, as the sensor reports them.
        end: (n,) float32, the temperature sought.
        tau: (n,) float32, seconds; for the breakdown of the figures only.
    """

    signal: NDArray[np.float32]
    end: NDArray[np.float32]
    tau: NDArray[np.float32]


def response(
    end: NDArray[np.float64], start: NDArray[np.float64], tau: NDArray[np.float64], tau_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What a perfect sensor with its lag would show, (n, READINGS), from four (n,) parameters."""
    t = np.arange(READINGS) * INTERVAL_S
    slow, fast = tau[:, None], tau_s[:, None]
    left = (slow * np.exp(-t / slow) - fast * np.exp(-t / fast)) / (slow - fast)
    return np.asarray(end[:, None] + (start - end)[:, None] * left)


def record(count: int, seed: int) -> Recording:
    """`count` recordings with noise, drift and the sensor's steps; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    end = rng.uniform(*RANGES["end"], count)
    start = rng.uniform(np.maximum(RANGES["start"][0], end + _MIN_FALL_C), RANGES["start"][1])
    tau, tau_s = rng.uniform(*RANGES["tau"], count), rng.uniform(*RANGES["tau_s"], count)
    noise = rng.normal(size=(count, READINGS)) * rng.uniform(*NOISE_C, (count, 1))
    drift = rng.normal(scale=DRIFT_C_PER_WINDOW, size=(count, 1)) * np.linspace(0, 1, READINGS)
    exact = response(end, start, tau, tau_s) + noise + drift
    signal = np.round(exact / STEP_C) * STEP_C
    return Recording(signal.astype(np.float32), end.astype(np.float32), tau.astype(np.float32))
