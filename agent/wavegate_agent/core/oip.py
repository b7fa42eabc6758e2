"""Open Inference Protocol v2 messages: parse a request, write a response, in JSON and with binary tensors. No numpy here.

A tensor's data is either a flat list of JSON values or a view of the raw little-endian bytes that followed the JSON
header (the binary tensor data extension, `Inference-Header-Content-Length`). Turning it into arrays is the work of
`adapters/serving/tensors.py`, so the SDK can speak the protocol on a machine without numpy.

Every refusal is a UsageError or DeviceError with a stable code; `status_of` gives its HTTP status.

Source: KServe Open Inference Protocol v2 (REST) and Triton's binary tensor data extension.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wavegate_shared.errors import UsageError, WavegateError

__all__ = [
    "ITEM_BYTES",
    "MAX_BODY_BYTES",
    "MAX_ID_CHARS",
    "OWN_FIELD",
    "OWN_LATENCY_FIELD",
    "Feedback",
    "InferRequest",
    "OutputTensor",
    "Tensor",
    "Wanted",
    "error_body",
    "pack_strings",
    "parse_feedback",
    "parse_request",
    "render_request",
    "render_response",
    "status_of",
    "unpack_bytes",
    "unpack_strings",
]

MAX_BODY_BYTES = 64 << 20
MAX_ID_CHARS = 200
OWN_FIELD = "X-Wavegate-Own-Request"
"""Marks a request as the agent's own: the token that the worker made for it."""
OWN_LATENCY_FIELD = "X-Wavegate-Own-Latency-Ms"
"""In the answer to it: from the request fully read to the answer ready."""
_MAX_TENSORS = 64
_MAX_DIMENSIONS = 8

ITEM_BYTES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""Bytes of one element of each numeric datatype that is read here; BYTES has a length before each element."""

_STATUS = {
    "invalid": 400,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "inference_failed": 500,
    "not_ready": 503,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as it came: `data` is a flat list of JSON values, or the raw bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | memoryview

    @property
    def elements(self) -> int:
        """How many elements the shape holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that was asked for by name, and whether as binary data."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed inference request. `outputs` empty: all of them. `binary` is the default for outputs not named."""

    id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Wanted, ...] = ()
    binary: bool = False


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output to send: with `raw` as binary data, else `values` as JSON."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: list[Any] | None = None
    raw: bytes | memoryview | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """The true labels of an earlier request's samples, in order."""

    id: str
    labels: tuple[float, ...]


class _JsonTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: Any = None
    parameters: dict[str, Any] = {}


class _JsonWanted(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _JsonRequest(msgspec.Struct):
    inputs: list[_JsonTensor]
    id: str = ""
    outputs: list[_JsonWanted] = []
    parameters: dict[str, Any] = {}


class _JsonFeedback(msgspec.Struct):
    id: str
    label: float | list[float]


_REQUEST = msgspec.json.Decoder(_JsonRequest)
_FEEDBACK = msgspec.json.Decoder(_JsonFeedback)
_ENCODER = msgspec.json.Encoder()


@dataclass(slots=True)
class _Cursor:
    """The binary part, consumed tensor by tensor."""

    data: memoryview
    at: int = field(default=0)

    def take(self, size: object, name: str) -> memoryview:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise UsageError("invalid", f"input {name}: binary_data_size is not a size")
        if self.at + size > len(self.data):
            raise UsageError("invalid", f"input {name}: {size} bytes of binary data are announced, fewer were sent")
        self.at += size
        return self.data[self.at - size : self.at]


def parse_request(body: bytes | bytearray | memoryview, header_length: int | None = None) -> InferRequest:
    """Read the body of an infer call.

    Args:
        body: the whole body; binary tensors are views into it, not copies.
        header_length: value of `Inference-Header-Content-Length`, None when the body is all JSON.

    Raises:
        UsageError: `invalid`, naming the tensor and the rule.
    """
    view = memoryview(body)
    cut = len(view) if header_length is None else header_length
    if not 0 <= cut <= len(view):
        raise UsageError("invalid", "Inference-Header-Content-Length is larger than the body")
    try:
        parsed = _REQUEST.decode(view[:cut])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("invalid", f"the request is not valid: {error}") from error
    if len(parsed.id) > MAX_ID_CHARS:
        raise UsageError("invalid", f"id is longer than {MAX_ID_CHARS} characters")
    if not 0 < len(parsed.inputs) <= _MAX_TENSORS or len(parsed.outputs) > _MAX_TENSORS:
        raise UsageError("invalid", f"a request has 1 to {_MAX_TENSORS} inputs and at most as many outputs")
    cursor = _Cursor(view[cut:])
    inputs = tuple(_tensor(raw, cursor) for raw in parsed.inputs)
    if cursor.at != len(cursor.data):
        raise UsageError("invalid", "more binary data than the inputs announce")
    if len({tensor.name for tensor in inputs}) != len(inputs):
        raise UsageError("invalid", "an input is given twice")
    default = parsed.parameters.get("binary_data_output") is True
    wanted = tuple(Wanted(out.name, out.parameters.get("binary_data", default) is True) for out in parsed.outputs)
    return InferRequest(parsed.id, inputs, wanted, default)


def _tensor(raw: _JsonTensor, cursor: _Cursor) -> Tensor:
    if len(raw.shape) > _MAX_DIMENSIONS or any(not 0 <= side <= 2**31 for side in raw.shape):
        raise UsageError("invalid", f"input {raw.name}: shape {raw.shape}")
    if raw.datatype != "BYTES" and raw.datatype not in ITEM_BYTES:
        raise UsageError("invalid", f"input {raw.name}: datatype {raw.datatype!r} is not read here")
    shape = tuple(raw.shape)
    elements = math.prod(shape)
    if "binary_data_size" in raw.parameters:
        data = cursor.take(raw.parameters["binary_data_size"], raw.name)
        expected = elements * ITEM_BYTES.get(raw.datatype, 0)
        if raw.datatype != "BYTES" and len(data) != expected:
            raise UsageError("invalid", f"input {raw.name}: {len(data)} bytes, its shape needs {expected}")
        return Tensor(raw.name, raw.datatype, shape, data)
    if raw.datatype == "FP16":
        raise UsageError("invalid", f"input {raw.name}: FP16 has no JSON form, send it as binary data")
    if not isinstance(raw.data, list):
        raise UsageError("invalid", f"input {raw.name}: data is missing")
    flat = _flatten(raw.data, raw.name)
    if len(flat) != elements:
        raise UsageError("invalid", f"input {raw.name}: {len(flat)} elements, its shape needs {elements}")
    _check_types(raw.name, raw.datatype, flat)
    return Tensor(raw.name, raw.datatype, shape, flat)


def _check_types(name: str, datatype: str, flat: list[Any]) -> None:
    if datatype == "BYTES":
        fits = all(type(value) is str for value in flat)
    elif datatype == "BOOL":
        fits = all(type(value) is bool for value in flat)
    elif datatype.startswith("FP"):
        fits = all(type(value) in (int, float) for value in flat)
    else:
        bits = 8 * ITEM_BYTES[datatype]
        low, high = (0, 2**bits) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        fits = all(type(value) is int and low <= value < high for value in flat)
    if not fits:
        raise UsageError("invalid", f"input {name}: an element is not a {datatype}")


def _flatten(data: list[Any], name: str, depth: int = 0) -> list[Any]:
    if depth > _MAX_DIMENSIONS:
        raise UsageError("invalid", f"input {name}: nested deeper than {_MAX_DIMENSIONS}")
    if not any(type(value) is list for value in data):
        return data
    flat: list[Any] = []
    for value in data:
        if type(value) is not list:
            raise UsageError("invalid", f"input {name}: rows and single values are mixed")
        flat.extend(_flatten(value, name, depth + 1))
    return flat


def parse_feedback(body: bytes | bytearray | memoryview) -> Feedback:
    """Read the body of a feedback call: `{"id": str, "label": number or list of numbers}`.

    Raises:
        UsageError: `invalid`.
    """
    try:
        parsed = _FEEDBACK.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError("invalid", f"the feedback is not valid: {error}") from error
    labels = tuple(parsed.label) if isinstance(parsed.label, list) else (parsed.label,)
    if not parsed.id or not labels:
        raise UsageError("invalid", "feedback names a request by id and has at least one label")
    return Feedback(parsed.id, labels)


def render_response(
    request: InferRequest, model: str, version: int, parameters: dict[str, Any], outputs: Iterable[OutputTensor]
) -> tuple[int | None, list[bytes | memoryview]]:
    """The body of an answer in pieces, and the length of its JSON header (None when all of it is JSON)."""
    document: dict[str, Any] = {"model_name": model, "model_version": str(version)}
    if request.id:
        document["id"] = request.id
    document["parameters"] = parameters
    header, pieces = _render(document, "outputs", outputs)
    return (len(header) if pieces else None), [header, *pieces]


def render_request(
    inputs: Iterable[OutputTensor], *, request_id: str = "", binary_output: bool = True
) -> tuple[int, list[bytes | memoryview]]:
    """The body of a request in pieces, and the length of its JSON header; `parse_request` reads it back."""
    document: dict[str, Any] = {"id": request_id} if request_id else {}
    document["parameters"] = {"binary_data_output": binary_output}
    header, pieces = _render(document, "inputs", inputs)
    return len(header), [header, *pieces]


def _render(
    document: dict[str, Any], key: str, tensors: Iterable[OutputTensor]
) -> tuple[bytes, list[bytes | memoryview]]:
    pieces: list[bytes | memoryview] = []
    rendered = []
    for tensor in tensors:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if tensor.raw is None:
            entry["data"] = tensor.values
        else:
            entry["parameters"] = {"binary_data_size": len(tensor.raw)}
            pieces.append(tensor.raw)
        rendered.append(entry)
    return _ENCODER.encode({**document, key: rendered}), pieces


def pack_strings(texts: Iterable[str | bytes]) -> bytes:
    """BYTES elements in binary form: a 4-byte little-endian length before each."""
    out = bytearray()
    for text in texts:
        raw = text.encode() if isinstance(text, str) else text
        out += struct.pack("<I", len(raw)) + raw
    return bytes(out)


def unpack_strings(data: memoryview, elements: int, name: str = "") -> list[str]:
    """BYTES elements from binary form; `unpack_strings(pack_strings(t), len(t)) == t`.

    Raises:
        UsageError: `invalid` when lengths do not add up or an element is not UTF-8.
    """
    texts: list[str] = []
    for raw in unpack_bytes(data, elements, name):
        try:
            texts.append(raw.decode())
        except UnicodeDecodeError as error:
            raise UsageError("invalid", f"input {name}: an element is not UTF-8") from error
    return texts


def unpack_bytes(data: memoryview, elements: int, name: str = "") -> list[bytes]:
    """BYTES elements as they are, for files sent as data. Raises UsageError `invalid` when lengths do not add up."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise UsageError("invalid", f"input {name}: cut off inside a length")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise UsageError("invalid", f"input {name}: an element is longer than the data")
        found.append(bytes(data[at : at + size]))
        at += size
        if len(found) > elements:
            break
    if len(found) != elements:
        raise UsageError("invalid", f"input {name}: not the {elements} elements its shape needs")
    return found


def error_body(code: str, message: str) -> bytes:
    """The error object: OIP's `error` text, and the stable code beside it."""
    return _ENCODER.encode({"error": message, "code": code})


def status_of(error: WavegateError) -> int:
    """The HTTP status an error is answered with; 500 for one that is not the client's."""
    return _STATUS.get(error.code, 500)
