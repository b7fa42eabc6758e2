"""Makes the signal-inversion bundle: simulate, train, export, measure, write.

    pip install '.[distil]' scipy
    python deploy/models/signal-inversion/make.py

The trained weights are read from the cache where they are there; `--redo` trains
again. About three minutes on one free core.

Not here: anything a device or the demo needs. Both use the committed bundle.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from signal_inversion_recipe.bundle import write_bundle
from signal_inversion_recipe.classical import fit_ends
from signal_inversion_recipe.net import Inverter, Plan, export, fit, run
from signal_inversion_recipe.report import Report, figures, readme
from signal_inversion_recipe.simulator import Recording, record

HERE = Path(__file__).resolve().parent
TRAINING, POOL, EVALUATION, CALIB = 200_000, 2_000, 2_000, 128
SEEDS = {"training": 41, "pool": 42, "evaluation": 43, "calib": 44}
PLAN = Plan(steps=6000, batch=512, rate=2e-3, seed=40)
GOLDEN_HARD, GOLDEN_RANDOM, HARD_SHARE = 100, 100, 0.1
CEILING = 1.15  # times the original's own golden error
TAU_EDGES_MIN = (4, 10, 18, 25)


def train(cache: Path, *, redo: bool) -> Inverter:
    """The trained network, from the cache where it is there."""
    torch.manual_seed(PLAN.seed)
    model, path = Inverter(), cache / "model.pt"
    if path.exists() and not redo:
        model.load_state_dict(torch.load(path))
        model.eval()
        return model
    _say(f"train: {TRAINING} recordings, {PLAN.steps} steps of {PLAN.batch}")
    fit(model, record(TRAINING, SEEDS["training"]), PLAN)
    torch.save(model.state_dict(), path)
    return model


def choose_golden(pool: Recording, said: NDArray[np.float32]) -> Recording:
    """Half from the hardest tenth of the pool, half at random, shuffled."""
    rng = np.random.default_rng(SEEDS["pool"])
    order = np.argsort(-np.abs(said - pool.end), kind="stable")
    hard = rng.choice(order[: int(HARD_SHARE * len(order))], GOLDEN_HARD, replace=False)
    rest = rng.choice(np.setdiff1d(order, hard), GOLDEN_RANDOM, replace=False)
    return _rows(pool, rng.permutation(np.concatenate([hard, rest])))


def main() -> None:
    """Everything that is committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache" / "signal-inversion")
    parser.add_argument("--out", type=Path, default=HERE, help="where bundle/ goes")
    parser.add_argument("--redo", action="store_true", help="train again")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    model = train(given.cache, redo=given.redo)
    make_bundle(model, given.out, given.cache)


def make_bundle(model: Inverter, out: Path, cache: Path) -> None:
    """Exports, selects, measures and writes."""
    graph = export(model)
    pool, evaluation = record(POOL, SEEDS["pool"]), record(EVALUATION, SEEDS["evaluation"])
    golden = choose_golden(pool, run(graph, pool.signal)[:, 0])
    reference = run(graph, golden.signal)
    golden_error = figures(reference[:, 0], golden.end).mean
    ceiling = round(CEILING * golden_error, 3)
    folder = out / "bundle"
    write_bundle(
        folder,
        model=graph,
        golden=golden,
        reference=reference,
        calib=record(CALIB, SEEDS["calib"]),
        evaluation=evaluation,
        ceiling=ceiling,
    )
    answers = {
        "this network": run(graph, evaluation.signal)[:, 0],
        "least squares": _classical(evaluation, cache / f"least-squares-{SEEDS['evaluation']}-{EVALUATION}.npy"),
    }
    report = Report(
        overall=[(name, figures(said, evaluation.end)) for name, said in answers.items()],
        by_tau=_by_tau(answers, evaluation),
        golden=golden_error,
        ceiling=ceiling,
        parameters=sum(weight.numel() for weight in model.parameters()),
        model_bytes=(folder / "model.onnx").stat().st_size,
        training=TRAINING,
        samples=EVALUATION,
    )
    note = HERE / "compressed.md"
    text = readme(report).replace("@COMPRESSED@", note.read_text(encoding="utf-8").strip() if note.exists() else "")
    (folder / "README.md").write_text(text, encoding="utf-8")
    for field, value in dataclasses.asdict(report).items():
        _say(f"  {field}: {value}")


def _classical(data: Recording, kept: Path) -> NDArray[np.float32]:
    """The least-squares answers, kept because they take longer than all the rest but training."""
    if not kept.exists():
        np.save(kept, fit_ends(data.signal))
    answers: NDArray[np.float32] = np.load(kept)
    return answers


def _by_tau(answers: dict[str, NDArray[np.float32]], data: Recording) -> list[tuple[str, int, list[float]]]:
    rows = []
    for first, last in pairwise(TAU_EDGES_MIN):
        chosen = (data.tau >= 60 * first) & (data.tau < 60 * last)
        errors = [figures(said[chosen], data.end[chosen]).mean for said in answers.values()]
        rows.append((f"{first} to {last} minutes", int(chosen.sum()), errors))
    return rows


def _rows(data: Recording, rows: NDArray[np.int64]) -> Recording:
    return Recording(data.signal[rows], data.end[rows], data.tau[rows])


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
