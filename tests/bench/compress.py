"""Compression without training: size, speed and loss of each model's result, and how many results were not as stated.

The large models come from `deploy/models/.cache/<name>/` (a bundle and `unseen.npz`); a model that is not there is left out,
and the notes say how to make it. Two small nets of the test suite are in no way tuned for, and always run. Every job starts
from an empty cache. `silent_failures` is counted by `_compress_scorer`: a result that is worse than its budget allowed, or
slower while its job said faster, on samples no job has seen.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench._compress_scorer import Unseen, score
from tests.support.graphs import conv_net, regression_net, sensor_samples, stripes, write_bundle_of, write_conv_bundle
from wavegate_server.adapters.bundles import open_bundle
from wavegate_server.adapters.onnx_files import prepare
from wavegate_server.compress.job import JobResult, Options, run_job
from wavegate_server.core.budget import parse_budget

ROOT = Path(__file__).parents[2] / "deploy" / "models"
CACHE = ROOT / ".cache"


@dataclass(frozen=True)
class Case:
    """A model of the bench. `limit`: loss its budget allows, in the metric's unit."""

    name: str
    bundle: Path
    unseen: Path
    budget: str
    limit: float


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run every case that is here; figures by `<model>.ptq.<key>`."""
    figures: dict[str, Any] = {}
    notes: dict[str, Any] = {"threads": 1}
    failures = models = 0
    with tempfile.TemporaryDirectory(prefix="wavegate-bench-") as scratch:
        for case in _cases(Path(scratch), notes, quick=options.quick):
            sys.stderr.write(f"{case.name}: {case.budget}\n")
            result, unseen = _one(case, Path(scratch))
            models += 1
            notes[case.name] = _note(result)
            if unseen is None:
                continue
            figures |= _figures(case.name, result, unseen)
            wrong = _wrong(case, result, unseen)
            if wrong:
                notes[f"{case.name}.silent_failure"] = wrong
            failures += bool(wrong)
    return {**figures, "models": models, "silent_failures": failures, "notes": notes}


def _one(case: Case, scratch: Path) -> tuple[JobResult, Unseen | None]:
    out = scratch / f"{case.name}-out"
    with open_bundle(case.bundle) as bundle:
        items = parse_budget(case.budget, bundle.spec.metric)
        result = run_job(bundle, items, out, options=Options(time_s=1200, cache=scratch / f"{case.name}-cache"))
        if result.chosen is None or result.chosen.path is None:
            return result, None
        original = scratch / f"{case.name}-original.onnx"
        prepare(bundle.model_path, original, stored=bundle.spec.stored)
    return result, score(original, out, case.unseen)


def _figures(name: str, result: JobResult, unseen: Unseen) -> dict[str, float]:
    measured = result.chosen.measured if result.chosen else None
    assert measured is not None
    return {
        f"{name}.ptq.size_ratio": round(unseen.size_ratio, 4),
        f"{name}.ptq.speed_ratio": round(measured.p50_before / measured.p50_ms, 3),
        f"{name}.ptq.drop_pt": round(unseen.drop * 100, 3),
        f"{name}.ptq.agreement": round(unseen.agreement, 4),
        f"{name}.ptq.seconds": round(result.seconds, 1),
    }


def _wrong(case: Case, result: JobResult, unseen: Unseen) -> str:
    """Why the result is not as stated, or nothing."""
    measured = result.chosen.measured if result.chosen else None
    assert measured is not None
    if unseen.drop > case.limit:
        return f"loses {unseen.drop:.4f} on unseen samples, the budget allowed {case.limit}"
    if abs(unseen.size_ratio - measured.size_bytes / measured.size_before) > 0.001:
        return "its size is not the stated one"
    claimed = measured.p50_before / measured.p50_ms
    return f"stated {claimed:.2f}x, is {unseen.speed:.2f}x" if claimed > 1.05 and unseen.speed < 1 else ""


def _note(result: JobResult) -> dict[str, Any]:
    rows = {}
    for candidate in result.candidates:
        m = candidate.measured
        rows[candidate.recipe] = (
            {"reason": candidate.reason}
            if m is None
            else {
                "size": round(m.size_bytes / m.size_before, 4),
                "speed": round(m.p50_before / m.p50_ms, 3),
                "metric": round(m.value, 4),
                "drop_pt": round(m.drop.value * 100, 3),
                "drop_high_pt": round(m.drop.high * 100, 3),
                "agreement": round(candidate.agreement, 4),
                "reason": candidate.reason,
            }
        )
    chosen = result.chosen.recipe if result.chosen else None
    return {"chosen": chosen, "words": result.judged.words, "candidates": rows, "notes": result.notes}


def _cases(scratch: Path, notes: dict[str, Any], *, quick: bool) -> list[Case]:
    found = [] if quick else _large(notes)
    images, labels = stripes(1000, 77)
    np.savez(scratch / "stripes.npz", allow_pickle=False, **{"input.image": images, "label": labels})
    plain = write_conv_bundle(scratch / "stripes", golden=600)
    wild = write_conv_bundle(scratch / "wild", model=conv_net(wild=True), golden=600)
    sensor = write_bundle_of(scratch / "sensor", regression_net(), *sensor_samples(600, 2), sensor_samples(64, 3)[0])
    x, y = sensor_samples(1000, 78)
    np.savez(scratch / "sensor.npz", allow_pickle=False, **{"input.x": x, "label": y})
    small = [
        Case("stripes", plain, scratch / "stripes.npz", "size=-50%,drop=2pt", 0.02),
        Case("stripes_wild", wild, scratch / "stripes.npz", "size=-50%,drop=2pt", 0.02),
        Case("sensor", sensor, scratch / "sensor.npz", "size=-40%,error=+20%", 0.012),
    ]
    student = ROOT / "address-match"
    if not quick:
        _traffic(student / "traffic.jsonl", scratch / "student.npz")
        small.append(
            Case("address_student", student / "bundle", scratch / "student.npz", "size=-70%,drop=3pt,speed=1.2x", 0.03)
        )
    return [*found, *small]


def _large(notes: dict[str, Any]) -> list[Case]:
    wanted = {
        "address": ("address-teacher", "size=-74%,speed=2.2x,drop=0.9pt", 0.009),
        "resnet18": ("resnet18", "size=-74%,speed=2x,drop=1pt", 0.01),
        "efficientnet_lite0": ("efficientnet_lite0", "size=-70%,drop=4pt", 0.04),
    }
    cases = []
    for name, (folder, budget, limit) in wanted.items():
        place = CACHE / folder
        if (place / "bundle" / "bundle.yaml").is_file():
            cases.append(Case(name, place / "bundle", place / "unseen.npz", budget, limit))
        else:
            notes[name] = f"not here: put its bundle and unseen.npz into deploy/models/.cache/{folder}"
    return cases


def _traffic(lines: Path, target: Path) -> None:
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    pairs, labels = zip(*(([row["a"], row["b"]], row["label"]) for row in rows), strict=True)
    np.savez(target, allow_pickle=False, **{"input.text": np.array(pairs), "label": np.array(labels)})
