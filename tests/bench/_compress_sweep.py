"""Two measurements behind docs/compression-measurements.md: how many calibration samples are enough, and what magnitude pruning gives.

    python -m tests.bench._compress_sweep BUNDLE [--recipe int8-static-per-channel] [--rows 400]

One line for each of 4, 16, 64 and 96 calibration samples, and for each way of pruning: bytes, bytes after zstd, the metric and
the agreement with the original on the bundle's eval set. No search, no choice, no repair: one recipe applied as it is.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wavegate_server.adapters.files.bundles import Bundle, open_bundle
from wavegate_server.adapters.files.onnx_files import prepare
from wavegate_server.compress.measure.run import score_model
from wavegate_server.compress.measure.samples import load_samples
from wavegate_server.compress.onnx_graph.magnitude import download_bytes
from wavegate_server.compress.onnx_graph.quantise import apply
from wavegate_server.core.compress.recipes import Recipe, named

SIZES = (4, 16, 64, 96)
PRUNED = {"below 0.01": {"threshold": 0.01}, "40 % of each": {"sparsity": 0.4}, "50 % of each": {"sparsity": 0.5}}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--recipe", default="int8-static-per-channel")
    parser.add_argument("--rows", type=int, default=400, help="samples of the eval set")
    options = parser.parse_args()
    with open_bundle(options.bundle) as bundle, tempfile.TemporaryDirectory(prefix="wavegate-sweep-") as scratch:
        original = Path(scratch) / "original.onnx"
        prepare(bundle.model_path, original, stored=bundle.spec.stored)
        base = _clean(original, Path(scratch))
        before = _line(bundle, "original", original, None, options.rows)
        feeds = load_samples(
            bundle.path((bundle.spec.calib or bundle.spec.golden).file), bundle.spec.pre, bundle.directory
        ).feeds[:]
        static = named(options.recipe)
        tried: list[tuple[str, Recipe, list[Any]]] = [
            (f"{options.recipe}, {count} samples", static, list(feeds[:count])) for count in SIZES
        ]
        pruned = named("magnitude-40-percent")
        tried += [
            (f"magnitude, {name}", replace(pruned, threshold=how.get("threshold"), sparsity=how.get("sparsity")), [])
            for name, how in PRUNED.items()
        ]
        for name, recipe, some in tried:
            target = Path(scratch) / "candidate.onnx"
            apply(recipe, base, target, some)
            _line(bundle, name, target, before, options.rows)
    return 0


def _clean(original: Path, scratch: Path) -> Path:
    from wavegate_server.compress.process.children import run_child

    job = {"source": str(original), "target": str(scratch / "base.onnx"), "stored": "float32", "probe": None}
    run_child("wavegate_server.compress.onnx_graph.clean", job)
    return scratch / "base.onnx"


def _line(bundle: Bundle, name: str, model: Path, before: list[int] | None, rows: int) -> list[int]:
    file = bundle.path((bundle.spec.eval or bundle.spec.golden).file)
    with np.load(file, allow_pickle=False) as archive:
        samples = min(rows, len(archive["label"]))
    got = score_model(model, file, bundle.spec, bundle.directory, rows=list(range(samples)))
    same = 1.0 if before is None else float(np.mean(np.array(before) == np.array(got.top1)))
    size, packed = model.stat().st_size, download_bytes(model)
    print(f"{name:44} {size / 1e6:7.2f} MB  zstd {packed / 1e6:7.2f} MB  {got.value:.4f}  same {same:.4f}  n {samples}")
    sys.stdout.flush()
    return list(got.top1)


if __name__ == "__main__":
    sys.exit(main())
