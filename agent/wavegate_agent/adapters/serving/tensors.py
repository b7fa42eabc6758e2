"""Protocol tensors to numpy arrays and back. Worker only."""

from typing import Any

import numpy as np
import numpy.typing as npt

from wavegate_agent.core.oip import OutputTensor, Tensor, pack_strings, unpack_bytes, unpack_strings
from wavegate_shared.errors import UsageError

__all__ = ["DTYPES", "Array", "datatype_of", "from_array", "texts", "to_array"]

Array = npt.NDArray[Any]

DTYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's type; object and string arrays are BYTES."""
    return _NAMES.get(array.dtype, "BYTES")


def texts(tensor: Tensor) -> list[str]:
    """The flat elements of a BYTES tensor. Raises UsageError `invalid`."""
    if tensor.datatype != "BYTES":
        raise UsageError("invalid", f"input {tensor.name}: expected BYTES, not {tensor.datatype}")
    if isinstance(tensor.data, memoryview):
        return unpack_strings(tensor.data, tensor.elements, tensor.name)
    return tensor.data


def to_array(tensor: Tensor, *, raw: bool = False) -> Array:
    """A numeric or BYTES tensor as an array; binary numeric data is viewed, not copied.

    Args:
        tensor: of a request.
        raw: BYTES sent as binary data are files, not text: elements are `bytes`.
    """
    if tensor.datatype == "BYTES" and raw and isinstance(tensor.data, memoryview):
        return _files(unpack_bytes(tensor.data, tensor.elements, tensor.name), tensor.shape)
    if tensor.datatype == "BYTES":
        return np.array(texts(tensor), dtype=object).reshape(tensor.shape)
    dtype = DTYPES[tensor.datatype]
    if isinstance(tensor.data, memoryview):
        return np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape)
    return np.array(tensor.data, dtype=dtype).reshape(tensor.shape)


def _files(values: list[bytes], shape: tuple[int, ...]) -> Array:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made.reshape(shape)


def from_array(name: str, array: Array, *, binary: bool) -> OutputTensor:
    """An output to send, as binary data or as JSON values."""
    datatype = datatype_of(array)
    if datatype == "BYTES":
        flat = [value if isinstance(value, (str, bytes)) else str(value) for value in array.reshape(-1).tolist()]
        if binary:
            return OutputTensor(name, datatype, array.shape, raw=pack_strings(flat))
        values = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in flat]
        return OutputTensor(name, datatype, array.shape, values=values)
    if binary:
        contiguous = np.ascontiguousarray(array)
        return OutputTensor(name, datatype, array.shape, raw=contiguous.reshape(-1).view(np.uint8).data)
    plain = array.astype(np.float32) if datatype == "FP16" else array
    return OutputTensor(
        name, "FP32" if datatype == "FP16" else datatype, array.shape, values=plain.reshape(-1).tolist()
    )
