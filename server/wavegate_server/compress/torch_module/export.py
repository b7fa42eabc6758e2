"""A torch module as an ONNX file that computes the same: names, opset and dynamic axes as asked, and compared output by output.

Imported only in a job's subprocesses. The TorchScript exporter is used: it writes graphs the quantisers know, in a tenth of
the time of the newer one. A wrapper around a module in eval mode is itself in train mode until told, and the exporter then
switches dropout on again; so `export` sets eval mode, asks every part, and runs the module twice: what answers differently to
the same input is refused, whatever the reason.
"""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from wavegate_server.compress.measure.ort_errors import ORT_ERRORS
from wavegate_server.compress.measure.samples import Feed
from wavegate_shared.errors import UsageError

__all__ = ["OPSET", "TOLERANCE", "Names", "Parity", "compare", "export", "export_checked", "output_names", "outputs_of"]

OPSET = 17
TOLERANCE = 1e-3
"""Largest difference from torch, in units of the outputs' largest value (at least 1); usual is 1e-6."""
_STEADY = 1e-5
_SEED = 20
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Names:
    """What the graph calls its inputs and outputs, in the module's order, and which of their axes may vary (axis -> name)."""

    inputs: list[str]
    outputs: list[str]
    axes: dict[str, dict[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, file: Path) -> "Names":
        """Those of an ONNX file."""
        graph = onnx.load(str(file), load_external_data=False).graph
        held = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in held]
        axes = {value.name: _axes(value) for value in [*inputs, *graph.output]}
        return cls([value.name for value in inputs], [value.name for value in graph.output], axes)


@dataclass(frozen=True, slots=True)
class Parity:
    """An ONNX file beside the module it came from.

    Attributes:
        max_abs: largest absolute difference of any output value.
        scale: largest absolute output value of the module.
        agreement: share of samples whose first output has its largest value at the same place.
        samples: number of samples compared.
    """

    max_abs: float
    scale: float
    agreement: float
    samples: int

    @property
    def holds(self) -> bool:
        """Whether the difference is one of rounding."""
        return self.max_abs <= TOLERANCE * max(1.0, self.scale)


def export(module: nn.Module, feeds: Sequence[Feed], names: Names, target: Path, *, opset: int = OPSET) -> float:
    """Write `module` to `target`; gives the largest absolute difference of its outputs from the module's.

    The module is left in eval mode.

    Args:
        module: takes the graph's inputs in order, gives its outputs in order.
        feeds: samples to compare on, each with batch size 1; the first is traced.
        names: names and dynamic axes, as of the original: `Names.of(original)`.
        target: the file; written only when it computes the same.
        opset: version of the standard operators.

    Raises:
        UsageError: `bundle_invalid`: a module that does not answer alike twice, cannot be exported, or computes something else.
    """
    return export_checked(module, feeds, names, target, opset=opset).max_abs


def export_checked(
    module: nn.Module, feeds: Sequence[Feed], names: Names, target: Path, *, opset: int = OPSET
) -> Parity:
    """As `export`; gives the whole comparison."""
    if not feeds:
        raise UsageError("bundle_invalid", "an export needs at least one sample to compare on")
    ordered = _Ordered(module, names)
    ordered.eval()  # a new wrapper starts in train mode, and the exporter would give that back to all inside
    _check_steady(ordered, feeds[0], names)
    with tempfile.TemporaryDirectory(prefix="export-", dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        _write(ordered, feeds[0], names, made, opset)
        left = [name or "the module" for name, part in ordered.named_modules() if part.training]
        if left:
            raise UsageError("bundle_invalid", f"in train mode after the export: {', '.join(left[:5])}")
        parity = compare(ordered, made, feeds, names)
        if not parity.holds:
            raise UsageError(
                "bundle_invalid",
                f"the exported graph computes something else: outputs up to {parity.scale:.3g} differ by"
                f" {parity.max_abs:.3g} (agreement {parity.agreement:.1%}); its forward pass may depend on values, which"
                " a trace cannot hold",
            )
        made.replace(target)
    return parity


def compare(module: nn.Module, file: Path, feeds: Sequence[Feed], names: Names) -> Parity:
    """The file beside the module, sample by sample and, where the batch may vary, in one batch too."""
    session = _session(file)
    largest, scale, same = 0.0, 0.0, 0
    for feed in feeds:
        wanted, got = outputs_of(module, feed, names), _run(session, feed, names)
        largest, scale = max(largest, _difference(wanted, got)), max(scale, *(_largest(one) for one in wanted))
        same += int(_place(wanted[0]) == _place(got[0]))
    batch = _batch(feeds, names)
    if batch is not None:
        largest = max(largest, _difference(outputs_of(module, batch, names), _run(session, batch, names)))
    return Parity(largest, scale, same / len(feeds), len(feeds))


def outputs_of(module: nn.Module, feed: Feed, names: Names) -> list[Array]:
    """The module's outputs on one feed, in the order of `names`."""
    with torch.inference_mode():
        given = module(*(torch.from_numpy(np.ascontiguousarray(feed[name])) for name in names.inputs))
    return [one.detach().cpu().numpy() for one in _in_order(given, names.outputs)]


def output_names(module: nn.Module, inputs: Sequence[Array]) -> list[str]:
    """Names for the outputs: the keys of a mapping, else `output`, or `output_0`, `output_1`, ...

    Raises:
        UsageError: `bundle_invalid`: the module does not take these inputs.
    """
    try:
        with torch.inference_mode():
            given = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{array.dtype} {list(array.shape)}" for array in inputs)
        detail = " ".join(str(error).split())[:300]
        raise UsageError("bundle_invalid", f"the module does not run on inputs {shapes}: {detail}") from error
    if isinstance(given, Mapping):
        return [str(name) for name, value in given.items() if isinstance(value, torch.Tensor)]
    many = isinstance(given, list | tuple)
    return [f"output_{at}" for at in range(len(given))] if many and len(given) > 1 else ["output"]


class _Ordered(nn.Module):
    """The module with its outputs as a tuple in order, whether it gives one, several, or a mapping by name."""

    def __init__(self, inner: nn.Module, names: Names) -> None:
        super().__init__()
        self.inner = inner
        self._outputs = names.outputs

    def forward(self, *given: Any) -> Any:
        return _in_order(self.inner(*given), self._outputs)


def _in_order(given: Any, outputs: Sequence[str]) -> tuple[Any, ...]:
    if isinstance(given, Mapping):
        values = tuple(given[name] for name in outputs if name in given)
    elif isinstance(given, list | tuple):
        values = tuple(given)
    else:
        values = (given,)
    if len(values) != len(outputs) or not all(isinstance(one, torch.Tensor) for one in values):
        kinds = ", ".join(type(one).__name__ for one in values)
        raise UsageError(
            "bundle_invalid", f"the module gives {kinds or 'nothing'}; the outputs are {', '.join(outputs)}"
        )
    return values


def _check_steady(module: nn.Module, feed: Feed, names: Names) -> None:
    """Two runs differ where dropout is still on: in a part that no `.eval()` reaches, or written as a function."""
    torch.manual_seed(_SEED)
    first, second = ([one.copy() for one in outputs_of(module, feed, names)] for _ in range(2))
    apart = _difference(first, second)
    if not apart <= _STEADY * max(1.0, *(_largest(one) for one in first)):
        raise UsageError(
            "bundle_invalid",
            f"the module answers the same input twice with a difference of {apart:.3g}: dropout or another random part is on"
            " though it was set to eval mode (a part kept in a plain list, or a function with training=True?)",
        )


def _write(module: nn.Module, feed: Feed, names: Names, target: Path, opset: int) -> None:
    batched = all(0 in names.axes.get(name, {}) for name in names.inputs)
    arrays = [np.concatenate([feed[name]] * 2) if batched else feed[name] for name in names.inputs]
    try:
        with warnings.catch_warnings(action="ignore"):  # about itself being old, and each Python value it traces
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays),
                str(target),
                dynamo=False,
                opset_version=opset,
                input_names=names.inputs,
                output_names=names.outputs,
                dynamic_axes={name: axes for name, axes in names.axes.items() if axes},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:300]
        raise UsageError("bundle_invalid", f"the module cannot be exported: {detail}") from error


def _session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        raise UsageError("bundle_invalid", f"the exported graph does not load: {str(error)[:300]}") from error


def _run(session: ort.InferenceSession, feed: Feed, names: Names) -> list[Array]:
    known = {value.name for value in session.get_inputs()}
    try:
        return list(session.run(names.outputs, {name: feed[name] for name in names.inputs if name in known}))
    except ORT_ERRORS as error:
        detail = " ".join(str(error).split())[:300]
        raise UsageError("bundle_invalid", f"the exported graph does not run on the samples: {detail}") from error


def _batch(feeds: Sequence[Feed], names: Names) -> Feed | None:
    """Up to three samples of one shape in one feed; None where the batch is fixed."""
    if not all(0 in names.axes.get(name, {}) for name in names.inputs):
        return None
    alike = [feed for feed in feeds if all(feed[name].shape == feeds[0][name].shape for name in names.inputs)][:3]
    return {name: np.concatenate([feed[name] for feed in alike]) for name in names.inputs}


def _difference(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    if any(one.shape != other.shape for one, other in zip(wanted, got, strict=True)):
        return float("inf")
    apart = [
        float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))
        for one, other in zip(wanted, got, strict=True)
    ]
    return float("inf") if any(np.isnan(value) for value in apart) else max(apart)


def _largest(array: Array) -> float:
    return float(np.abs(array.astype(np.float64)).max(initial=0.0))


def _place(array: Array) -> int:
    return int(array.reshape(-1).argmax()) if array.size else -1


def _axes(value: onnx.ValueInfoProto) -> dict[int, str]:
    sides = value.type.tensor_type.shape.dim
    return {
        at: side.dim_param or f"{value.name}_{at}" for at, side in enumerate(sides) if not side.HasField("dim_value")
    }
