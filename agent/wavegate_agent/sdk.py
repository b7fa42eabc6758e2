"""A thin client of the local inference API: unix socket or TCP, binary tensors, label feedback.

    with Client(Path("/run/wavegate/infer.sock"), "address-match") as client:
        answer = client.infer_text_pairs([("12 High St", "12 High Street")], request_id="order-7")
        answer.values("logits")            # flat list of floats, no numpy needed
        client.feedback("order-7", 1)      # later, when the truth is known

An inference is idempotent, so a request whose connection was reset is sent once more: that hides the end of a worker that
crashed. A request is never sent again after a timeout or an answer. Standard library and the protocol's own module; numpy
is imported only by `Answer.array` and when arrays are given. One client serves one thread.
"""

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from wavegate_agent.core.http1 import HttpError, ResponseHead, find_end, parse_response, render_request
from wavegate_agent.core.oip import ITEM_BYTES, OutputTensor, pack_strings
from wavegate_agent.core.oip import render_request as render_inference
from wavegate_shared.errors import CODES, DeviceError, TransferError, UsageError, WavegateError, error_for

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Answer", "Client", "FeedbackAnswer"]

Address = Path | str | tuple[str, int]
_MAX_HEAD = 64 * 1024
_READ = 256 * 1024
_HEADER_LENGTH = "Inference-Header-Content-Length"
_FORMATS = {"FP32": "f", "FP64": "d", "INT64": "q", "INT32": "i", "INT8": "b", "UINT8": "B", "BOOL": "?", "FP16": "e"}


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Document(msgspec.Struct):
    model_name: str
    model_version: str
    outputs: list[_Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}


class _Problem(msgspec.Struct):
    error: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered.

    Attributes:
        id: the request's id, as sent.
        model: the model's name.
        version: the version that answered.
        manifest_sha256: digest of that version's signed manifest.
        shapes: shape of each output by name.
    """

    id: str
    model: str
    version: int
    manifest_sha256: str
    shapes: dict[str, list[int]]
    _types: dict[str, str]
    _data: dict[str, list[Any] | memoryview]

    def values(self, name: str) -> list[Any]:
        """The flat values of an output, row by row. Raises KeyError for an unknown name."""
        data = self._data[name]
        if isinstance(data, list):
            return data
        count = len(data) // ITEM_BYTES[self._types[name]]
        return list(struct.unpack(f"<{count}{_FORMATS[self._types[name]]}", data))

    def array(self, name: str) -> "npt.NDArray[Any]":
        """An output as a numpy array. Raises KeyError for an unknown name."""
        import numpy as np

        types = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16, "INT64": np.int64, "INT32": np.int32}
        more = {"INT8": np.int8, "UINT8": np.uint8, "BOOL": np.bool_}
        data = self._data[name]
        dtype = {**types, **more}[self._types[name]]
        if isinstance(data, list):
            return np.array(data, dtype=dtype).reshape(self.shapes[name])
        return np.frombuffer(data, dtype=dtype).reshape(self.shapes[name])


@dataclass(frozen=True, slots=True)
class FeedbackAnswer:
    """What became of a label: the version it was counted for, the scores, and whether it had been sent before."""

    version: int
    scores: list[float]
    repeated: bool


class Client:
    """A keep-alive connection to one device's inference API.

    Args:
        address: path of the unix socket, or (host, port).
        model: the model's name.
        timeout_s: for connecting and for each read or write.
    """

    def __init__(self, address: Address, model: str, *, timeout_s: float = 30.0) -> None:
        self._address = address
        self.model = model
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None
        self.retries = 0

    def infer(self, inputs: Mapping[str, Any], *, request_id: str = "") -> Answer:
        """Ask the model.

        Args:
            inputs: numpy arrays by input name; text is sent as BYTES, plain lists of floats as FP32.
            request_id: names the request for `feedback`; unique among the device's recent ones.

        Raises:
            UsageError: the request is not what the model takes.
            DeviceError: `inference_failed` or `not_ready`.
            TransferError: `not_connected`: no answer, also after the one retry.
        """
        return self._ask([_tensor(name, array) for name, array in inputs.items()], request_id)

    def infer_text_pairs(self, pairs: Sequence[tuple[str, str]], *, request_id: str = "", name: str = "text") -> Answer:
        """Ask a model that takes pairs of texts; needs no numpy. Raises as `infer`."""
        flat = [text for pair in pairs for text in pair]
        return self._ask([OutputTensor(name, "BYTES", [len(pairs), 2], raw=pack_strings(flat))], request_id)

    def feedback(self, request_id: str, label: float | Sequence[float]) -> FeedbackAnswer:
        """Send the true label of an earlier request (one per sample); a repeated call counts once.

        Raises:
            UsageError: `not_found` when the request is not remembered any more, `invalid`.
            TransferError: `not_connected`.
        """
        labels = list(label) if isinstance(label, Sequence) else label
        body = msgspec.json.encode({"id": request_id, "label": labels})
        _, answer = self._call("POST", f"/v2/models/{self.model}/feedback", [], [body])
        document = msgspec.json.decode(answer)
        return FeedbackAnswer(int(document["model_version"]), document["scores"], document["repeated"])

    def ready(self) -> bool:
        """Whether the model answers here; False also when nothing can be reached."""
        try:
            self._call("GET", f"/v2/models/{self.model}/ready", [], [])
        except WavegateError:
            return False
        return True

    def metadata(self) -> dict[str, Any]:
        """The model's metadata: versions, inputs, outputs. Raises as `infer`."""
        _, answer = self._call("GET", f"/v2/models/{self.model}", [], [])
        document: dict[str, Any] = msgspec.json.decode(answer)
        return document

    def close(self) -> None:
        """Close the connection; the next call opens one again."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- wire ---------------------------------------------------------------------------------------------------------

    def _ask(self, tensors: list[OutputTensor], request_id: str) -> Answer:
        length, pieces = render_inference(tensors, request_id=request_id)
        fields = [("Content-Type", "application/octet-stream"), (_HEADER_LENGTH, str(length))]
        head, body = self._call("POST", f"/v2/models/{self.model}/infer", fields, pieces)
        return _answer(head, body)

    def _call(
        self, method: str, path: str, fields: list[tuple[str, str]], pieces: list[bytes | memoryview]
    ) -> tuple[ResponseHead, memoryview]:
        length = sum(len(piece) for piece in pieces)
        message = [render_request(method, path, "wavegate", fields, length), *pieces]
        try:
            head, body = self._exchange(message)
        except (ConnectionError, EOFError):
            self.close()
            self.retries += 1
            try:
                head, body = self._exchange(message)
            except (OSError, EOFError, HttpError) as error:
                self.close()
                raise TransferError("not_connected", f"no answer, also on a new connection: {error}") from error
        except (OSError, HttpError) as error:
            self.close()
            raise TransferError("not_connected", str(error) or type(error).__name__) from error
        if not head.keep_alive:
            self.close()
        if head.status != 200:
            raise _problem(head, body)
        return head, body

    def _exchange(self, message: Sequence[bytes | memoryview]) -> tuple[ResponseHead, memoryview]:
        sock = self._sock or self._connect()
        pending = [memoryview(piece) for piece in message if len(piece)]
        while pending:
            sent = sock.sendmsg(pending[:16])
            while pending and sent >= len(pending[0]):
                sent -= len(pending.pop(0))
            if sent:
                pending[0] = pending[0][sent:]
        return self._read(sock)

    def _read(self, sock: socket.socket) -> tuple[ResponseHead, memoryview]:
        data = bytearray()
        end = -1
        while end < 0:
            if len(data) > _MAX_HEAD:
                raise HttpError(431, "the answer's head is too long")
            searched = len(data)
            data += _some(sock, _READ)
            end = find_end(data, searched)
        head = parse_response(data[:end])
        body = bytearray(head.length)
        have = min(len(data) - end, head.length)
        body[:have] = data[end : end + have]
        view = memoryview(body)
        while have < head.length:
            got = sock.recv_into(view[have:])
            if not got:
                raise EOFError("the connection ended inside an answer")
            have += got
        return head, view

    def _connect(self) -> socket.socket:
        if isinstance(self._address, tuple):
            sock = socket.create_connection(self._address, self._timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self._timeout_s)
            try:
                sock.connect(str(self._address))
            except OSError:
                sock.close()
                raise
        self._sock = sock
        return sock


def _some(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size)
    if not data:
        raise EOFError("the connection ended before an answer")
    return data


def _tensor(name: str, array: Any) -> OutputTensor:
    import numpy as np

    given = np.asarray(array)
    if given.dtype == np.float64 and not isinstance(array, np.ndarray):
        given = given.astype(np.float32)  # models take FP32; who means FP64 gives an array
    if given.dtype.kind in "OUS":
        return OutputTensor(name, "BYTES", given.shape, raw=pack_strings(given.reshape(-1).tolist()))
    kinds = {"f": "FP", "i": "INT", "u": "UINT"}
    if given.dtype.kind not in "fiub":
        raise UsageError("invalid", f"input {name}: arrays of {given.dtype} cannot be sent")
    datatype = "BOOL" if given.dtype.kind == "b" else f"{kinds[given.dtype.kind]}{given.dtype.itemsize * 8}"
    little = given.astype(given.dtype.newbyteorder("<"), copy=False)
    return OutputTensor(name, datatype, given.shape, raw=np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)


def _answer(head: ResponseHead, body: memoryview) -> Answer:
    cut = int(head.fields.get(_HEADER_LENGTH.lower(), len(body)))
    document = msgspec.json.decode(body[:cut], type=_Document)
    data: dict[str, list[Any] | memoryview] = {}
    for tensor in document.outputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            data[tensor.name] = tensor.data or []
        else:
            data[tensor.name] = body[cut : cut + size]
            cut += size
    return Answer(
        id=document.id,
        model=document.model_name,
        version=int(document.model_version),
        manifest_sha256=str(document.parameters.get("manifest_sha256", "")),
        shapes={tensor.name: tensor.shape for tensor in document.outputs},
        _types={tensor.name: tensor.datatype for tensor in document.outputs},
        _data=data,
    )


def _problem(head: ResponseHead, body: memoryview) -> WavegateError:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem(error=f"status {head.status}")
    if problem.code in CODES:
        return error_for(problem.code, problem.error)
    kind = UsageError if head.status < 500 else DeviceError
    return kind("invalid" if head.status < 500 else "inference_failed", problem.error)
