"""How much memory an 800 MB model with its weights beside it takes: inspected, imported, cleaned, quantised, run.

Each step is a command of its own, as in a job, with a job's limit of 4 GiB of address space where it is a job's child; the figure
is the resident memory of the command and all it started, together, at its worst moment.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.large import Ran, run_gauged, tokens, write_large
from wavegate_server.compress.process.children import MEMORY_LIMIT_BYTES

__all__ = ["RECIPES", "figures", "steps"]

RECIPES = ("int8-weights", "int8-dynamic-per-channel")
_ORIGINAL = (
    "import sys; from pathlib import Path; from wavegate_server.adapters.files import onnx_files;"
    "onnx_files.prepare(Path(sys.argv[1]), Path(sys.argv[2]), stored='float32')"
)


def figures(folder: Path, say: Callable[[str], None], *, width: int = 1024) -> dict[str, float]:
    """`large.<step>_gb` and `large.peak_gb`; a step that failed is missing, and `large.failed` counts it."""
    found: dict[str, float] = {"large.failed": 0}
    for name, ran in steps(folder, width=width):
        say(f"large: {name}: {ran.peak_bytes / 1e9:.2f} GB, {ran.seconds:.0f} s{'' if ran.status == 0 else ' FAILED'}")
        if ran.status:
            say(ran.error.strip()[-300:])
            found["large.failed"] += 1
        found[f"large.{name}_gb"] = round(ran.peak_bytes / 1e9, 3)
    peaks = [value for key, value in found.items() if key.endswith("_gb")]
    size = (folder / "large.onnx.data").stat().st_size
    return {**found, "large.model_gb": round(size / 1e9, 3), "large.peak_gb": max(peaks)}


def steps(folder: Path, *, width: int = 1024) -> "Sequence[tuple[str, Ran]]":
    """Every step and how it ran."""
    model = write_large(folder, width=width)
    np.savez(folder / "x.npz", allow_pickle=False, tokens=tokens(40, width=width))
    bundle, original, base = folder / "bundle", folder / "original.onnx", folder / "base.onnx"
    wavegate = [sys.executable, "-m", "wavegate_server.cli.main", "model"]
    imported = ["import", str(model), "--inputs", str(folder / "x.npz"), "--out", str(bundle)]
    done = [
        ("inspect", run_gauged([*wavegate, "inspect", str(model)])),
        ("import", run_gauged([*wavegate, *imported])),
        ("original", run_gauged([sys.executable, "-c", _ORIGINAL, str(bundle / "model.onnx"), str(original)])),
    ]
    samples = {"samples": str(bundle / "golden.npz"), "directory": str(bundle), "pre": [], "rows": list(range(8))}
    feed = {"kind": "feed", **samples, "target": str(folder / "feed.npz")}
    done.append(("feed", _child("measure.probe", feed)))
    clean = {"source": str(original), "target": str(base), "stored": "float32", "probe": str(folder / "feed.npz")}
    done.append(("clean", _child("onnx_graph.clean", clean)))
    for recipe in RECIPES:
        target = folder / f"{recipe}.onnx"
        job = {"recipe": recipe, "source": str(base), "target": str(target), "float_nodes": [], "samples": 8}
        done.append(
            (
                recipe,
                _child(
                    "onnx_graph.quantise",
                    {**job, **samples, "calib": samples["samples"], "ranges": str(folder / "ranges.json")},
                ),
            )
        )
    for name, file in (("score_original", original), ("score_result", folder / f"{RECIPES[1]}.onnx")):
        job = {"kind": "score", "model": str(file), "metric": {"name": "agreement"}, "outputs": None}
        done.append((name, _child("measure.probe", {**job, **samples})))
    return done


def _child(module: str, job: dict[str, Any]) -> Ran:
    """A step of a job, limited as `children` limits it."""
    limited = ["sh", "-c", f'ulimit -v {MEMORY_LIMIT_BYTES >> 10}; exec "$@"', "sh"]
    return run_gauged([*limited, sys.executable, "-m", f"wavegate_server.compress.{module}"], stdin=json.dumps(job))
