"""A bundle from bare files: an ONNX file, some inputs, labels where there are any.

Without labels the original is the truth: the metric is agreement with its classes, or the mean difference from its numbers.
The file is taken with its external weights, upgraded to an opset that quantises, and run on all inputs before anything is
written: what does not fit is refused with its name.
"""

import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from wavegate_server.adapters.bundles import write_bundle
from wavegate_server.compress import graphs
from wavegate_server.compress.inspect import Inspection, inspect_model
from wavegate_server.compress.measure import probe
from wavegate_shared.errors import UsageError
from wavegate_shared.metrics import SCORERS

__all__ = ["Bare", "make_bundle"]

Array = NDArray[Any]
_SEED = 4
_OIP = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "int32": "INT32", "int8": "INT8",
    "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
_DOWN = frozenset({"mean_absolute_error", "character_error_rate"})
_SINGLE_FILE_BYTES = 2_000_000_000
_GOLDEN, _CALIB = 300, 128


@dataclass(frozen=True, slots=True)
class Bare:
    """What a bundle was made of. Attributes: directory, metric, value of the original, samples in each set, notes."""

    directory: Path
    metric: str
    value: float
    samples: dict[str, int]
    notes: list[str]


def make_bundle(
    file: Path, inputs: Path, out: Path, *, labels: Path | None = None, metric: str = "", name: str = ""
) -> Bare:
    """Write a bundle of `file` to `out`.

    Args:
        file: the ONNX file; external weights must lie in its folder.
        inputs: npz with an array for each graph input (`<name>` or `input.<name>`), or an npy for a single input.
        out: directory that does not exist yet or is empty.
        labels: npy, or npz with `label`; also taken from `inputs` when that has `label`.
        metric: a known metric; default accuracy, or the mean absolute error of a regression.
        name: the model's name; default from the file's.

    Raises:
        UsageError: `bundle_invalid`, `conflict` (`out` is in use), `invalid` (an unknown metric): what does not fit.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError("conflict", f"{out} is not empty; name a new directory")
    if metric and metric not in SCORERS:
        raise UsageError("invalid", f"metric {metric!r} is not known; known are {', '.join(sorted(SCORERS))}")
    model = graphs.load(file)
    before = graphs.opset(model)
    model = graphs.upgrade(model)
    found = inspect_model(model)
    notes = [*found.notes, *([f"opset {before} upgraded to {graphs.opset(model)}"] if found.opset != before else [])]
    arrays, truth = _read(inputs, labels, found)
    with tempfile.TemporaryDirectory(prefix="wavegate-bare-") as scratch:
        folder = Path(scratch)
        _save(model, folder / "model.onnx", file)
        reference, finite = _reference(folder, arrays)
        if not finite:
            raise UsageError("bundle_invalid", "the model gives outputs that are not finite (NaN or infinite)")
        chosen, labelled = _metric(metric, truth, reference, found)
        sets = _split(len(labelled))
        value = _write_sets(folder, sets, arrays, labelled, chosen, reference)
        document = _document(name or _name(file), found, arrays, chosen, value, reference, truth is None)
        if "eval" not in sets:
            document.pop("eval")
        if "calib" not in sets:
            document.pop("calib")
        names = ["model.onnx", *(f"{each}.npz" for each in sets)]
        write_bundle(out, document, {each: folder / each for each in names})
    if truth is None:
        notes.append("no labels: judged by how closely a result agrees with this model")
    return Bare(out, chosen, value, {each: len(rows) for each, rows in sets.items()}, notes)


def _read(inputs: Path, labels: Path | None, found: Inspection) -> tuple[dict[str, Array], Array | None]:
    given = _arrays(inputs)
    truth = given.pop("label", None)
    if labels is not None:
        held = _arrays(labels)
        truth = held.get("label", held.get(""))
        if truth is None:
            raise UsageError("bundle_invalid", f"{labels.name} holds no array called label")
    arrays = {name.removeprefix("input."): array for name, array in given.items()}
    wanted = [tensor.name for tensor in found.inputs]
    if "" in arrays:
        arrays = {wanted[0]: arrays[""]} if len(wanted) == 1 else arrays
    if set(arrays) != set(wanted):
        raise UsageError("bundle_invalid", f"the graph takes {sorted(wanted)}, {inputs.name} has {sorted(arrays)}")
    counts = {len(array) for array in arrays.values()} | ({len(truth)} if truth is not None else set())
    if len(counts) != 1 or counts == {0}:
        raise UsageError("bundle_invalid", f"inputs and labels differ in length: {sorted(counts)} samples")
    for tensor in found.inputs:
        _check(tensor.name, tensor.dtype, tensor.shape, arrays)
    return arrays, truth


def _check(name: str, dtype: str, shape: list[int | str], arrays: dict[str, Array]) -> None:
    array = arrays[name]
    wanted = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(dtype))
    if array.dtype.kind == wanted.kind or (array.dtype.kind in "iuf" and wanted.kind == "f"):
        arrays[name] = array = array.astype(wanted)
    fits = array.ndim == len(shape) and all(
        not isinstance(side, int) or side <= 0 or side == got
        for side, got in zip(shape[1:], array.shape[1:], strict=True)
    )
    if array.dtype != wanted or not fits:
        raise UsageError(
            "bundle_invalid", f"input {name}: {array.dtype} {list(array.shape)} does not fit {dtype} {shape}"
        )


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError("bundle_invalid", f"{path.name} is no npz or npy of plain arrays: {error}") from error


def _save(model: onnx.ModelProto, target: Path, file: Path) -> None:
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _SINGLE_FILE_BYTES:
        raise UsageError("bundle_invalid", f"{file.name} has more than 2 GB of weights: devices take single files")
    graphs.save(model, target)


def _reference(folder: Path, arrays: dict[str, Array]) -> tuple[Array, bool]:
    """The original's first output on every sample, (n, k), shorter ones padded with NaN; and whether all were finite."""
    samples = folder / "all.npz"
    np.savez(samples, allow_pickle=False, **{f"input.{name}": array for name, array in arrays.items()})
    job = {"kind": "score", "model": str(folder / "model.onnx"), "samples": str(samples), "rows": None}
    more = {"directory": str(folder), "pre": [], "outputs": str(folder / "outputs.npz")}
    answer = probe({**job, **more, "metric": {"name": "agreement"}})
    with np.load(folder / "outputs.npz", allow_pickle=False) as archive:
        return archive["outputs"], bool(answer["outputs_finite"])


def _metric(metric: str, truth: Array | None, reference: Array, found: Inspection) -> tuple[str, Array]:
    """The metric's name and a label for each sample."""
    numbers = found.head in ("regression", "sequence", "unknown") and reference.shape[1] != 2
    if truth is None:
        if metric in ("mean_absolute_error", "detection_agreement", "exact_match", "character_error_rate"):
            return metric, reference
        if metric not in ("", "agreement"):
            raise UsageError("bundle_invalid", f"metric {metric} needs labels")
        return ("mean_absolute_error", reference) if numbers else ("agreement", reference.argmax(axis=1))
    if truth.dtype.kind not in "iufb":
        raise UsageError("bundle_invalid", f"labels must be numbers, not {truth.dtype}")
    return metric or (
        "mean_absolute_error" if reference.shape[1] == 1 and truth.dtype.kind == "f" else "accuracy"
    ), truth


def _split(samples: int) -> dict[str, Array]:
    """Rows of each set, shuffled: calibration a quarter, then golden, and eval where more than 300 are left."""
    order = np.random.default_rng(_SEED).permutation(samples)
    calib = min(_CALIB, samples // 4) if samples >= 64 else 0
    rest = order[calib:]
    sets = {"golden": rest[:_GOLDEN] if len(rest) >= 2 * _GOLDEN else rest}
    if calib:
        sets["calib"] = order[:calib]
    if len(rest) >= 2 * _GOLDEN:
        sets["eval"] = rest[_GOLDEN:]
    return sets


def _write_sets(
    folder: Path, sets: dict[str, Array], arrays: dict[str, Array], labels: Array, metric: str, reference: Array
) -> float:
    """Write the sets; gives the original's value on the golden one."""
    for each, rows in sets.items():
        held = {f"input.{name}": array[rows] for name, array in arrays.items()}
        if each != "calib":
            held["label"] = labels[rows]
        if each == "golden" and np.isfinite(reference).all():
            held["reference"] = reference[rows].astype(np.float32)
        np.savez(folder / f"{each}.npz", allow_pickle=False, **held)
    job = {"kind": "score", "model": str(folder / "model.onnx"), "samples": str(folder / "golden.npz"), "rows": None}
    direction = "down" if metric in _DOWN else "up"
    answer = probe({**job, "directory": str(folder), "pre": [], "metric": {"name": metric, "direction": direction}})
    return float(answer["value"])


def _document(
    name: str, found: Inspection, arrays: dict[str, Array], metric: str, value: float, reference: Array, bare: bool
) -> dict[str, object]:
    down = metric in _DOWN
    spread = float(np.nanstd(reference)) or 1.0
    limit = {"ceiling": value * 1.1 + (0.02 * spread if bare else 0.0)} if down else {"floor": round(value - 0.05, 4)}
    unit = "share" if metric not in _DOWN or metric == "character_error_rate" else "output"
    return {
        "schema": 1,
        "model": name,
        "task": "regression" if down else found.head,
        "family": found.family,
        "model_file": "model.onnx",
        "inputs": [
            {"name": tensor, "datatype": _OIP.get(str(array.dtype), "FP32"), "shape": [-1, *array.shape[1:]]}
            for tensor, array in arrays.items()
        ],
        "outputs": [
            {"name": t.name, "datatype": "FP32", "shape": [s if isinstance(s, int) else -1 for s in t.shape]}
            for t in found.outputs
        ],
        "metric": {"name": metric, "unit": unit, "direction": "down" if down else "up"},
        "golden": {"file": "golden.npz", **limit},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
    }


def _name(file: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:63] or "model"
