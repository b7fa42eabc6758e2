"""The signal-inversion recipe: its simulator solves the equations it states, and the bundle holds what it makes."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2] / "deploy" / "models" / "signal-inversion"
BUNDLE = ROOT / "bundle"
EVALUATION_SEED = 43


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("signal_inversion_recipe.simulator")


def stepped(case: tuple[float, ...], until_s: int) -> float:
    """The two differential equations in small steps, without their closed solution."""
    end, start, tau, tau_s = case
    air = sensor = start
    for _ in range(until_s * 10):
        air, sensor = air + 0.1 * (end - air) / tau, sensor + 0.1 * (air - sensor) / tau_s
    return sensor


@pytest.mark.parametrize("case", [(4.0, 21.0, 600.0, 30.0), (-1.0, 9.0, 250.0, 60.0), (11.0, 29.0, 1400.0, 15.0)])
def test_the_closed_solution_solves_the_stated_equations(simulator: Any, case: tuple[float, ...]) -> None:
    shown = simulator.response(*(np.array([value]) for value in case))[0]
    for reading in (0, 7, 63):
        wanted = stepped(case, until_s=round(reading * simulator.INTERVAL_S))
        assert shown[reading] == pytest.approx(wanted, abs=0.02)


def test_readings_come_in_the_sensors_steps_and_repeat_with_the_seed(simulator: Any) -> None:
    first, again = simulator.record(50, seed=1), simulator.record(50, seed=1)
    np.testing.assert_array_equal(first.signal, again.signal)
    steps = first.signal / simulator.STEP_C
    np.testing.assert_array_equal(steps, np.round(steps))
    assert (first.signal[:, 0] > first.end).all()


def test_the_evaluation_set_is_what_the_simulator_makes(simulator: Any) -> None:
    with np.load(BUNDLE / "eval.npz", allow_pickle=False) as arrays:
        signal, label = arrays["input.signal"], arrays["label"]
    made = simulator.record(len(label), EVALUATION_SEED)
    np.testing.assert_allclose(signal, made.signal, atol=simulator.STEP_C)  # a last bit may round to the next step
    np.testing.assert_allclose(label, made.end, rtol=1e-6)


def test_the_whole_bundle_is_small() -> None:
    assert sum(file.stat().st_size for file in BUNDLE.iterdir()) <= 1_000_000


def test_the_readme_says_that_it_is_a_simulator_and_names_the_classical_way() -> None:
    text = (BUNDLE / "README.md").read_text(encoding="utf-8")
    assert "simulator" in text
    assert "least squares" in text
