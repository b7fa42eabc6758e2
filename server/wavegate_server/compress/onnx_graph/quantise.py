"""The subprocess that applies one recipe: `python -m wavegate_server.compress.onnx_graph.quantise`.

Job: {"recipe", "source", "target", "calib": npz, "directory", "pre", "rows": [..] or null,
     "float_nodes": [names], "samples": n, "ranges": where calibrated ranges are kept or found}
    -> {"notes": [what was done otherwise than asked], "plan": {node: precision}}
The source is what `clean` wrote: named nodes, no stale shapes. Known faults of the quantiser are answered here: one scale
a tensor where per-channel crashes, min-max where histograms cannot work.
"""

import contextlib
import inspect
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from wavegate_server.compress.measure.samples import Feed, load_samples
from wavegate_server.compress.onnx_graph import bias_correction, graphs
from wavegate_server.compress.onnx_graph.magnitude import UNCHANGED, prune
from wavegate_server.compress.onnx_graph.weight_only import to_float16, to_int4, to_int8_weights
from wavegate_server.core.compress.recipes import Recipe, named
from wavegate_shared.errors import UsageError

__all__ = ["FAULTS", "apply", "main"]

FAULTS = (ValueError, TypeError, RuntimeError, KeyError, IndexError, AttributeError, AssertionError, ImportError)
"""What ONNX Runtime's quantiser raises on graphs it does not expect."""
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_HISTOGRAM_SAMPLES = 32
_KEEPS_RANGES = "calibration_cache_path" in inspect.signature(quantize_static).parameters
_OUTPUT_SHARE = 0.1


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = list(feeds)
        self._left = iter(self._feeds)

    def get_next(self) -> Feed | None:
        return next(self._left, None)

    def rewind(self) -> None:
        self._left = iter(self._feeds)

    def __len__(self) -> int:
        return len(self._feeds)


def main() -> int:
    """Read a job from standard input, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = _run(job)
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    except FAULTS as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        answer = {"error": "failed", "detail": f"{type(error).__name__}: {first}"}
    print("\n" + json.dumps(answer))
    return 1 if "error" in answer else 0


def _run(job: dict[str, Any]) -> dict[str, Any]:
    recipe = named(job["recipe"])
    feeds: list[Feed] = []
    if recipe.method == "static":
        samples = load_samples(Path(job["calib"]), job["pre"], Path(job["directory"]))
        feeds = list((samples if job["rows"] is None else samples.rows(job["rows"])).feeds[: job["samples"]])
    source, target = Path(job["source"]), Path(job["target"])
    return apply(recipe, source, target, feeds, float_nodes=job["float_nodes"], ranges=Path(job["ranges"]))


def apply(
    recipe: Recipe,
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    *,
    float_nodes: Sequence[str] = (),
    ranges: Path | None = None,
) -> dict[str, Any]:
    """Write the candidate; gives the notes and the precision of each weighted node. `feeds` calibrate static recipes.

    `ranges` keeps the calibrated ranges for the next call on the same source and recipe, whatever is left float.
    """
    model = graphs.load(source)
    kept = [*float_nodes, *_small_output_layer(model, recipe)]
    notes = [f"output layer kept float: {', '.join(sorted(set(kept) - set(float_nodes)))}"] if kept else []
    if recipe.method == "weights":
        to_int8_weights(model, recipe.ops, kept)
        graphs.save(model, target)
    elif recipe.method == "magnitude":
        zero = prune(model, threshold=recipe.threshold, sparsity=recipe.sparsity)
        notes.append(f"{zero:.1%} of the weights are zero; {UNCHANGED}")
        graphs.save(model, target)
    elif recipe.method == "float16":
        to_float16(model, target)
    elif recipe.method == "nbits":
        to_int4(model, target, kept)
    elif recipe.method == "dynamic":
        del model
        notes += _with_fallback(recipe, lambda per_channel: _dynamic(recipe, source, target, kept, per_channel))
    else:
        del model
        method, note = _calibration(recipe, feeds)
        some = feeds if method == "minmax" else feeds[:_HISTOGRAM_SAMPLES]
        wanted = _for_graph(source, some)
        notes += note
        notes += _with_fallback(
            recipe,
            lambda per_channel: _static(
                recipe, source, target, kept, per_channel=per_channel, method=method, feeds=wanted, ranges=ranges
            ),
        )
        corrected = bias_correction.correct(source, target, wanted)
        notes += [f"biases of {corrected} layers corrected for what rounding shifts"] if corrected else []
    return {"notes": notes, "plan": _plan(source, recipe, kept)}


def _small_output_layer(model: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """The output layer where keeping it float costs little: its rounding errors are the only ones nothing evens out."""
    if recipe.method in ("float16", "weights", "magnitude"):
        return []
    constants = graphs.constants_of(model.graph)
    held = {n.name: w for n in graphs.weighted_nodes(model) if (w := graphs.weight_of(n, constants)) is not None}
    total = sum(int(np.prod(weight.dims)) for weight in held.values())
    last = graphs.output_layer(model)
    share = sum(int(np.prod(held[name].dims)) for name in last) / max(total, 1)
    return last if share <= _OUTPUT_SHARE and len(last) < len(held) else []


def _with_fallback(recipe: Recipe, make: Callable[[bool], None]) -> list[str]:
    if not recipe.per_channel:
        make(False)
        return []
    try:
        make(True)
    except FAULTS as error:
        make(False)
        return [f"one scale a tensor: per-channel failed here ({type(error).__name__})"]
    return []


def _calibration(recipe: Recipe, feeds: Sequence[Feed]) -> tuple[str, list[str]]:
    if not feeds:
        raise UsageError("bundle_invalid", "a static recipe needs calibration inputs, and the bundle has none")
    shapes = {tuple(sorted((name, array.shape) for name, array in feed.items())) for feed in feeds}
    if recipe.calibration != "minmax" and len(shapes) > 1:
        return "minmax", [f"min-max ranges: {recipe.calibration} needs inputs of one shape"]
    return recipe.calibration, []


def _for_graph(source: Path, feeds: Sequence[Feed]) -> list[Feed]:
    known = {value.name for value in graphs.load(source, weights=False).graph.input}
    return [{name: array for name, array in feed.items() if name in known} for feed in feeds]


def _dynamic(recipe: Recipe, source: Path, target: Path, kept: Sequence[str], per_channel: bool) -> None:
    quantize_dynamic(
        model_input=source,
        model_output=target,
        op_types_to_quantize=list(recipe.ops),
        per_channel=per_channel,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(kept),
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _static(
    recipe: Recipe,
    source: Path,
    target: Path,
    kept: Sequence[str],
    *,
    per_channel: bool,
    method: str,
    feeds: Sequence[Feed],
    ranges: Path | None,
) -> None:
    quantize_static(
        model_input=source,
        model_output=target,
        calibration_data_reader=_Reader(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(recipe.ops),
        per_channel=per_channel,
        activation_type=QuantType.QInt8 if recipe.activations == "int8" else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(kept),
        calibrate_method=_METHODS[method],
        extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": recipe.activations == "int8"},
        **({"calibration_cache_path": ranges} if ranges and _KEEPS_RANGES else {}),
    )


def _plan(source: Path, recipe: Recipe, kept: Sequence[str]) -> dict[str, str]:
    """Precision of each weighted node, as this recipe asks for."""
    made = {"float16": "float16", "magnitude": "float32", "weights": "int8 stored, float32 computed"}.get(
        recipe.method, "int8"
    )
    plan = {}
    for node in graphs.weighted_nodes(graphs.load(source, weights=False)):
        if recipe.method == "nbits":
            precision = {"MatMul": "int4", "Gather": "int8"}.get(node.op_type, "float32")
        else:
            precision = made if not recipe.ops or node.op_type in recipe.ops else "float32"
        plan[node.name] = "float32" if node.name in kept else precision
    return plan


if __name__ == "__main__":
    sys.exit(main())
