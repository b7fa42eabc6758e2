"""A bundle from bare files: an ONNX file, some inputs, labels where there are any.

Without labels the original is the truth: the metric is agreement with its classes, or nearness to its numbers. The file is
taken with its external weights, upgraded to an opset that quantises, and run on all inputs before anything is written: what
does not fit is refused with its name. `compress/intake/torch_module` comes here with the graph it exported.
"""

import hashlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from wavegate_server.adapters.files.bundles import write_bundle
from wavegate_server.compress.intake.frameworks import refuse_foreign
from wavegate_server.compress.intake.preprocessing import Declared, read_declared
from wavegate_server.compress.measure.run import probe
from wavegate_server.compress.onnx_graph import graphs
from wavegate_server.compress.onnx_graph.inspect import Inspection, inspect_model
from wavegate_shared.errors import UsageError
from wavegate_shared.metrics import BOX_NUMBERS, LESS_IS_BETTER, SCORERS, Direction, Metric, evaluate

__all__ = ["Bare", "Given", "check_free", "make_bundle", "parse_metric", "read_arrays"]

Array = NDArray[Any]
_SEED = 4
_OIP = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "int32": "INT32", "int8": "INT8",
    "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
_OF_OUTPUTS = frozenset({"error_bound", "detection_agreement", "exact_match", *LESS_IS_BETTER})
"""Metrics that can take the original's outputs for labels."""
_SINGLE_FILE_BYTES = 2_000_000_000
_GOLDEN, _CALIB = 300, 128
_JUDGED_FIRST = 3
"""Answers on which a metric is tried against themselves before all are scored."""
_NEAR = 0.1


@dataclass(frozen=True, slots=True)
class Given:
    """What comes beside the model file.

    Attributes:
        inputs: npz with an array for each graph input (`<name>` or `input.<name>`), or an npy for a single input.
        labels: npy, or npz with `label`; also taken from `inputs` when that has `label`.
        metric: a known metric, `error_bound:5%` or `error_bound:0.5` with its bound; default accuracy, or the mean absolute
            error of a regression.
        name: the model's name; default from the file's.
        train: npz like `inputs`, with `label`: samples to distil with. Those that are judged on are left out.
        pre: YAML or JSON with the operations that make the graph's inputs of those given; None: they are the graph's own.
    """

    inputs: Path
    labels: Path | None = None
    metric: str = ""
    name: str = ""
    train: Path | None = None
    pre: Path | None = None


@dataclass(frozen=True, slots=True)
class Bare:
    """What a bundle was made of. Attributes: directory, metric, value of the original, samples in each set, notes."""

    directory: Path
    metric: str
    value: float
    samples: dict[str, int]
    notes: list[str]


def make_bundle(
    file: Path,
    given: Given,
    out: Path,
    *,
    source: Mapping[str, Any] | None = None,
    source_files: Mapping[str, Path] | None = None,
) -> Bare:
    """Write a bundle of `file` to `out`.

    Args:
        file: the ONNX file; external weights must lie in its folder.
        given: samples and what they are judged by.
        out: directory that does not exist yet or is empty.
        source: for `source` in `bundle.yaml`: the torch module the file was exported from.
        source_files: its files, by their names in the bundle.

    Raises:
        UsageError: `bundle_invalid`, `format_unsupported`, `conflict` (`out` is in use), `invalid` (an unknown metric).
    """
    check_free(out)
    refuse_foreign(file)
    wanted = parse_metric(given.metric) if given.metric else None
    model = graphs.load(file)
    before = graphs.opset(model)
    model = graphs.upgrade(model)
    found = inspect_model(model)
    notes = [*found.notes, *([f"opset {before} upgraded to {graphs.opset(model)}"] if found.opset != before else [])]
    declared = read_declared(given.pre) if given.pre else Declared()
    arrays, truth = _read(given.inputs, given.labels, found, declared)
    with tempfile.TemporaryDirectory(prefix="wavegate-bare-") as scratch:
        folder = Path(scratch)
        _save(model, folder / "model.onnx", file)
        for name, path in declared.files.items():
            shutil.copyfile(path, folder / name)
        reference, finite = _reference(folder, arrays, declared)
        if not finite:
            raise UsageError("bundle_invalid", "the model gives outputs that are not finite (NaN or infinite)")
        metric, labels = _metric(wanted, truth, reference, found)
        sets = _split(len(labels))
        value = _write_sets(folder, sets, arrays, labels, metric, reference, declared)
        samples = {each: len(rows) for each, rows in sets.items()}
        if given.train is not None:
            samples["train"], dropped = _write_train(folder, given.train, found, declared, list(arrays.values()))
            notes += [f"{dropped} training samples left out: they are among those it is judged on"] if dropped else []
        document = _document(_slug(given.name or file.stem), found, arrays, metric, value, reference, truth is None)
        document.update({each: {"file": f"{each}.npz"} for each in samples if each != "golden"})
        document.update({"pre": declared.pre} if declared.pre else {})
        names = ["model.onnx", *(f"{each}.npz" for each in samples), *declared.files]
        if source is not None:
            document["source"] = dict(source)
        write_bundle(out, document, {**{each: folder / each for each in names}, **(source_files or {})})
    if truth is None:
        notes.append("no labels: judged by how closely a result agrees with this model")
    return Bare(out, metric.name, value, samples, notes)


def check_free(out: Path) -> None:
    """Raises UsageError `conflict` when something is in `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("conflict", f"{out} is not empty; name a new directory")


def parse_metric(text: str) -> Metric:
    """The metric a user names, with its bound where it has one. Raises UsageError `invalid`."""
    name, _, bound = text.partition(":")
    if name not in SCORERS:
        raise UsageError("invalid", f"metric {name!r} is not known; known are {', '.join(sorted(SCORERS))}")
    direction = Direction.DOWN if name in LESS_IS_BETTER else Direction.UP
    unit = "output" if name in ("mean_absolute_error", "root_mean_squared_error") else "share"
    metric = Metric(name, unit, direction)
    if name != "error_bound" and not bound:
        return metric
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)(%?)", bound)
    if name != "error_bound" or match is None or not float(match[1]) > 0:
        raise UsageError("invalid", f"metric {text!r}: write error_bound:5% (of the wanted value) or error_bound:0.5")
    share = 0.01 if match[2] else 1.0
    return msgspec.structs.replace(metric, bound=float(match[1]) * share, relative=bool(match[2]))


def _read(
    inputs: Path, labels: Path | None, found: Inspection, declared: Declared
) -> tuple[dict[str, Array], Array | None]:
    given = read_arrays(inputs)
    truth = given.pop("label", None)
    if labels is not None:
        held = read_arrays(labels)
        truth = held.get("label", held.get(""))
        if truth is None:
            raise UsageError("bundle_invalid", f"{labels.name} holds no array called label")
    arrays = {name.removeprefix("input."): array for name, array in given.items()}
    wanted = declared.inputs([tensor.name for tensor in found.inputs])
    if "" in arrays:
        arrays = {wanted[0]: arrays[""]} if len(wanted) == 1 else arrays
    if set(arrays) != set(wanted):
        who = "the operations and the graph take" if declared.pre else "the graph takes"
        raise UsageError("bundle_invalid", f"{who} {sorted(wanted)}, {inputs.name} has {sorted(arrays)}")
    counts = {len(array) for array in arrays.values()} | ({len(truth)} if truth is not None else set())
    if len(counts) != 1 or counts == {0}:
        raise UsageError("bundle_invalid", f"inputs and labels differ in length: {sorted(counts)} samples")
    graphs_own = arrays
    if declared.pre:
        graphs_own = declared.first({name: array[:1] for name, array in arrays.items()}, inputs.name)
    for tensor in found.inputs:
        if tensor.name not in graphs_own:
            raise UsageError("bundle_invalid", f"no operation makes the graph's input {tensor.name}")
        _check(tensor.name, tensor.dtype, tensor.shape, graphs_own)
    return {name: arrays[name] for name in wanted}, truth


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


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an npz by name, or that of an npy as "". Raises UsageError `bundle_invalid`."""
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


def _reference(folder: Path, arrays: dict[str, Array], declared: Declared) -> tuple[Array, bool]:
    """The original's first output on every sample, (n, k), shorter ones padded with NaN; and whether all were finite."""
    samples = folder / "all.npz"
    np.savez(samples, allow_pickle=False, **{f"input.{name}": array for name, array in arrays.items()})
    job = {"kind": "score", "model": str(folder / "model.onnx"), "samples": str(samples), "rows": None}
    more = {"directory": str(folder), "pre": declared.pre, "outputs": str(folder / "outputs.npz")}
    answer = probe({**job, **more, "metric": {"name": "agreement"}})
    with np.load(folder / "outputs.npz", allow_pickle=False) as archive:
        return archive["outputs"], bool(answer["outputs_finite"])


def _metric(wanted: Metric | None, truth: Array | None, reference: Array, found: Inspection) -> tuple[Metric, Array]:
    """The metric and a label for each sample."""
    numbers = found.head in ("regression", "sequence", "unknown") and reference.shape[1] != 2
    if truth is None:
        if wanted is not None and wanted.name in _OF_OUTPUTS:
            _check_judges_itself(wanted, reference, found)
            return wanted, reference
        if wanted is not None and wanted.name != "agreement":
            raise UsageError("bundle_invalid", f"metric {wanted.name} needs labels")
        if numbers:
            near = _NEAR * float(np.nanstd(reference)) or _NEAR
            return Metric("error_bound", bound=near, relative=False), reference
        return Metric("agreement"), reference.argmax(axis=1)
    if truth.dtype.kind not in "iufb":
        raise UsageError("bundle_invalid", f"labels must be numbers, not {truth.dtype}")
    if not np.isfinite(truth).all():
        raise UsageError("bundle_invalid", "labels must be finite (no NaN, nothing infinite)")
    one_number = reference.shape[1] == 1 and truth.dtype.kind == "f"
    return wanted or parse_metric("mean_absolute_error" if one_number else "accuracy"), truth


def _check_judges_itself(metric: Metric, reference: Array, found: Inspection) -> None:
    """Refuse a metric by which the original does not agree with its own answers: it reads something else in them.

    Raises:
        UsageError: `bundle_invalid`, with what the metric reads and what to choose instead.
    """
    shape = found.outputs[0].shape if found.outputs else []
    last = shape[-1] if shape else -1
    reads = {
        "detection_agreement": "rows of x1, y1, x2, y2, score, class: its last dimension is 6",
        "exact_match": "numbers of tokens, -1 where there is none",
        "character_error_rate": "numbers of tokens, -1 where there is none",
    }.get(metric.name, "numbers")
    best = 1.0 if metric.direction is Direction.UP else 0.0
    boxes = metric.name != "detection_agreement" or not isinstance(last, int) or last in (-1, 0, BOX_NUMBERS)
    rows = [row[np.isfinite(row)] for row in reference[:_JUDGED_FIRST]]
    values = [evaluate(metric, [row.tolist()], [row.tolist()]) for row in rows] if boxes else []
    if boxes and all(abs(value - best) < 1e-9 for value in values):
        return
    told = f" (it scores {values[0]:.3f} instead of {best:g})" if values else ""
    detail = (
        f"{metric.name} cannot judge this model: by it the model does not agree with its own answers{told}. It reads {reads}; "
        f"the output {found.outputs[0].name} has the shape {shape}. Decode the output in the graph or choose another --metric, "
        "as error_bound:5%"
    )
    raise UsageError("bundle_invalid", detail)


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
    folder: Path,
    sets: dict[str, Array],
    arrays: dict[str, Array],
    labels: Array,
    metric: Metric,
    reference: Array,
    declared: Declared,
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
    place = {"directory": str(folder), "pre": declared.pre}
    answer = probe({**job, **place, "metric": msgspec.to_builtins(metric)})
    return float(answer["value"])


def _write_train(
    folder: Path, train: Path, found: Inspection, declared: Declared, judged: list[Array]
) -> tuple[int, int]:
    """Write the training set without samples that are judged on; gives how many were kept and how many left out."""
    arrays, labels = _read(train, None, found, declared)
    if labels is None:
        raise UsageError("bundle_invalid", f"{train.name} holds no array called label: training needs labels")
    if labels.dtype.kind not in "iufb" or not np.isfinite(labels).all():
        raise UsageError("bundle_invalid", f"{train.name}: labels must be finite numbers")
    seen = set(_digests(judged))
    kept = np.array([digest not in seen for digest in _digests(list(arrays.values()))])
    if not kept.any():
        raise UsageError("bundle_invalid", f"{train.name} holds only samples that the model is judged on")
    held = {f"input.{name}": array[kept] for name, array in arrays.items()}
    np.savez(folder / "train.npz", allow_pickle=False, label=labels[kept], **held)
    return int(kept.sum()), int((~kept).sum())


def _digests(arrays: list[Array]) -> list[bytes]:
    """One digest a sample, over all its inputs."""
    rows = range(len(arrays[0]))
    return [hashlib.sha256(b"".join(array[row].tobytes() for array in arrays)).digest() for row in rows]


def _document(
    name: str, found: Inspection, arrays: dict[str, Array], metric: Metric, value: float, reference: Array, bare: bool
) -> dict[str, object]:
    down = metric.direction is Direction.DOWN
    spread = float(np.nanstd(reference)) or 1.0
    limit = {"ceiling": value * 1.1 + (0.02 * spread if bare else 0.0)} if down else {"floor": round(value - 0.05, 4)}
    bound = {"bound": metric.bound, "relative": metric.relative} if metric.name == "error_bound" else {}
    of_numbers = metric.name in ("error_bound", "mean_absolute_error", "root_mean_squared_error")
    return {
        "schema": 1,
        "model": name,
        "task": "regression" if of_numbers else found.head,
        "family": found.family,
        "model_file": "model.onnx",
        "inputs": [
            {"name": tensor, "datatype": _datatype(array), "shape": [-1, *array.shape[1:]]}
            for tensor, array in arrays.items()
        ],
        "outputs": [
            {"name": t.name, "datatype": "FP32", "shape": [s if isinstance(s, int) else -1 for s in t.shape]}
            for t in found.outputs
        ],
        "metric": {"name": metric.name, "unit": metric.unit, "direction": str(metric.direction), **bound},
        "golden": {"file": "golden.npz", **limit},
    }


def _datatype(array: Array) -> str:
    return "BYTES" if array.dtype.kind in "US" else _OIP.get(str(array.dtype), "FP32")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63] or "model"
