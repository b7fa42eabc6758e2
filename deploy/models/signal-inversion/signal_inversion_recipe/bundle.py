"""Writes the bundle directory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray

from signal_inversion_recipe.simulator import READINGS, Recording

__all__ = ["write_bundle"]

DESCRIPTION = "At which temperature will a cooled compartment settle? From the first ten minutes after the door closed."


def write_bundle(
    folder: Path,
    *,
    model: onnx.ModelProto,
    golden: Recording,
    reference: NDArray[np.float32],
    calib: Recording,
    evaluation: Recording,
    ceiling: float,
) -> None:
    """Writes every file of the bundle but its README.

    Args:
        folder: Created where missing; files of the same names are replaced.
        model: The fp32 graph.
        golden: Recordings that travel with the version.
        reference: (golden, 1) float32, what the graph answers on them.
        calib: Recordings for quantisation; written without labels.
        evaluation: Labelled recordings that stay on the server.
        ceiling: Golden error above which a version is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    _write_arrays(folder / "golden.npz", {"input.signal": golden.signal, "label": golden.end, "reference": reference})
    _write_arrays(folder / "calib.npz", {"input.signal": calib.signal})
    _write_arrays(folder / "eval.npz", {"input.signal": evaluation.signal, "label": evaluation.end})
    document = _document(ceiling)
    names = ("model.onnx", "golden.npz", "calib.npz", "eval.npz")
    document["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    (folder / "bundle.yaml").write_text(text, encoding="utf-8")


def _document(ceiling: float) -> dict[str, object]:
    return {
        "schema": 1,
        "model": "signal-inversion",
        "task": "regression",
        "family": "mlp",
        "licence": "Apache-2.0",
        "description": DESCRIPTION,
        "model_file": "model.onnx",
        "inputs": [{"name": "signal", "datatype": "FP32", "shape": [-1, READINGS]}],
        "outputs": [{"name": "settled", "datatype": "FP32", "shape": [-1, 1]}],
        "pre": [],
        "post": [],
        "metric": {"name": "mean_absolute_error", "unit": "degC", "direction": "down"},
        "golden": {"file": "golden.npz", "ceiling": ceiling},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
        "slo": {"p95_ms": None, "peak_memory_mb": None},
        "requires": {"memory_mb": 48},
    }


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, **arrays)
