"""What ONNX Runtime raises when it cannot load or run a graph, as one tuple: it has a dozen kinds without a common base."""

from onnxruntime.capi import onnxruntime_pybind11_state as _state

__all__ = ["ORT_ERRORS"]

ORT_ERRORS: tuple[type[Exception], ...] = (
    _state.EPFail,
    _state.EngineError,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoModel,
    _state.NoSuchFile,
    _state.NotFound,
    _state.NotImplemented,
    _state.RuntimeException,
    IndexError,
    RuntimeError,
    ValueError,
)
"""With the built-in ones for inputs that are missing or of another type."""
