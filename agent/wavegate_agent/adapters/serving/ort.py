"""ONNX Runtime behind four methods: load, describe, run, providers. Worker only; the one door to `onnxruntime`.

Options and why: all graph optimisations; one thread per run and no spinning (spinning burns 6 times the CPU at 10
requests a second); the arena stays on (memory is given back by ending the process). A provider that is missing only makes
the runtime warn and fall to the CPU, so the providers are asked from the available list and compared after loading.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from wavegate_agent.adapters.serving.tensors import Array
from wavegate_shared.errors import DeviceError

__all__ = ["Session", "runtime_version"]

_CPU = "CPUExecutionProvider"
_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_NO_MEMORY = re.compile(r"bad.alloc|bad allocation|failed to allocate|out of memory|cannot allocate", re.IGNORECASE)
# The binding's exceptions share only RuntimeError-like names and differ between releases, so they are taken from it.
_ERRORS: tuple[type[BaseException], ...] = (
    *(
        value
        for value in vars(ort.capi.onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
    RuntimeError,
    ValueError,
    MemoryError,
)


class Session:
    """One loaded model; `run` may be called from several threads."""

    def __init__(self, path: Path, *, intra_threads: int, providers: Sequence[str]) -> None:
        """Load a model file.

        Raises:
            DeviceError: `incompatible` (a provider is missing), `memory_short`, or `load_failed`.
        """
        available = ort.get_available_providers()
        missing = [name for name in providers if name not in available]
        if missing:
            raise DeviceError("incompatible", f"execution provider {', '.join(missing)} is not available here")
        asked = [*providers, *([] if _CPU in providers else [_CPU])]
        try:
            self._session = ort.InferenceSession(str(path), _options(intra_threads), providers=asked)
        except _ERRORS as error:
            raise DeviceError(_code(error, "load_failed"), _text(error)) from error
        active = self._session.get_providers()
        lost = [name for name in providers if name not in active]
        if lost:
            raise DeviceError("load_failed", f"the runtime fell back from {', '.join(lost)} to {', '.join(active)}")
        self.providers: list[str] = list(active)
        self.inputs: dict[str, Any] = {item.name: _TYPES.get(item.type) for item in self._session.get_inputs()}
        self.shapes: dict[str, list[int]] = {item.name: _shape(item.shape) for item in self._session.get_inputs()}
        self.outputs: list[str] = [item.name for item in self._session.get_outputs()]

    def run(self, feeds: dict[str, Array]) -> list[Array]:
        """All outputs in the graph's order. Raises DeviceError `inference_failed`."""
        try:
            return [np.asarray(value) for value in self._session.run(None, feeds)]
        except _ERRORS as error:
            raise DeviceError("inference_failed", _text(error)) from error


def runtime_version() -> str:
    """The runtime's version, as in `requires.runtime_min`."""
    return str(ort.__version__)


def _options(intra_threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = intra_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _shape(shape: Sequence[Any]) -> list[int]:
    return [side if isinstance(side, int) else -1 for side in shape]


def _code(error: BaseException, otherwise: str) -> str:
    return "memory_short" if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) else otherwise


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
