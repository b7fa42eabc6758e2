"""The Open Inference Protocol v2 endpoints of one loaded version, and the feedback call.

    GET  /v2                                     server metadata
    GET  /v2/health/live, /v2/health/ready
    GET  /v2/models/{model}[/versions/{v}]       model metadata
    GET  /v2/models/{model}[/versions/{v}]/ready
    POST /v2/models/{model}[/versions/{v}]/infer
    POST /v2/repository/index                    every model of this device, whoever serves it
    POST /v2/models/{model}/feedback             {"id": "...", "label": 1} joins a true label to an earlier request

Answers carry the version and the manifest's digest, as parameters and as headers. Errors are `{"error", "code"}`.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from wavegate_agent.adapters.serving.connections import Connection, Response, error_response
from wavegate_agent.adapters.serving.http_listener import Verdict
from wavegate_agent.adapters.serving.live_counts import LiveCounts
from wavegate_agent.adapters.serving.own_requests import OwnRequests
from wavegate_agent.adapters.serving.pipeline import LoadedVersion
from wavegate_agent.adapters.serving.tensors import Array, from_array
from wavegate_agent.core.http1 import HttpError, RequestHead
from wavegate_agent.core.oip import (
    MAX_BODY_BYTES,
    InferRequest,
    Wanted,
    parse_feedback,
    parse_request,
    render_response,
    status_of,
)
from wavegate_agent.core.predictions import Prediction, PredictionRing
from wavegate_agent.core.request_body import decoded
from wavegate_agent.core.worker_messages import ServedModel
from wavegate_shared import __version__
from wavegate_shared.errors import UsageError, WavegateError
from wavegate_shared.metrics import score

__all__ = ["InferenceApi", "model_of"]

_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready|feedback))?")
_JSON = ("Content-Type", "application/json")
_BINARY = ("Content-Type", "application/octet-stream")
_MAX_FEEDBACK_BYTES = 1 << 20
"""A label is small, and is read on the loop's own thread."""
_HEADER_LENGTH = "Inference-Header-Content-Length"
# What a model or its pre-processing can raise on a hostile input; anything else is a fault of ours and ends the process,
# which the agent restarts.
_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


class InferenceApi:
    """Answers requests with one version.

    Args:
        version: what answers.
        counts: where answers are counted.
        served: the models of the whole device.

    Attributes:
        settling: while another worker still sends its predictions, labels for unknown ids wait.
        on_unknown: called before an id is said to be unknown: another worker may just have sent it.
        own: which requests are the agent's own and count nowhere.
        on_prediction: told, on a pool thread and before the answer leaves, about each prediction remembered.
    """

    def __init__(
        self, version: LoadedVersion, counts: LiveCounts, served: Callable[[], list[ServedModel]] = list
    ) -> None:
        self.settling = False
        self.on_unknown: Callable[[], None] = lambda: None
        self._ring = PredictionRing()
        self._ring_lock = threading.Lock()
        self.own = OwnRequests()
        self.on_prediction: Callable[[Prediction], None] = lambda _: None
        self._version = version
        self._counts = counts
        self._served = served
        manifest = version.manifest
        self._model = manifest.model
        self._number = str(manifest.version)
        self._parameters: dict[str, Any] = {"version": self._number, "manifest_sha256": version.digest}
        self._fields = [
            ("X-Wavegate-Model-Version", self._number),
            ("X-Wavegate-Manifest-Sha256", version.digest),
        ]

    def remember(self, prediction: Prediction) -> None:
        """Keep a prediction for a label to come; any thread."""
        with self._ring_lock:
            self._ring.add(prediction)

    def remember_older(self, predictions: Iterable[Prediction]) -> None:
        """Keep what another worker predicted before this one took over."""
        with self._ring_lock:
            self._ring.add_older(predictions)

    def predictions(self) -> list[Prediction]:
        """What is remembered, oldest first."""
        with self._ring_lock:
            return self._ring.entries()

    # --- loop thread --------------------------------------------------------------------------------------------------

    def quick(self, connection: Connection) -> Response | Verdict:
        """Answer everything but inference here."""
        head = connection.head
        if head is None:
            return error_response(400, "invalid", "no request", keep_alive=False)
        try:
            return self._route(head, connection)
        except HttpError as error:
            return error_response(error.status, "invalid", error.message, keep_alive=head.keep_alive)
        except WavegateError as error:
            return error_response(status_of(error), error.code, error.detail, keep_alive=head.keep_alive)

    def _route(self, head: RequestHead, connection: Connection) -> Response | Verdict:
        fixed: dict[str, Callable[[], Any]] = {
            "/v2": self._server_metadata,
            "/v2/health/live": lambda: None,
            "/v2/health/ready": lambda: None,
        }
        path = head.path.rstrip("/")
        if path == "/v2/repository/index":
            return _wrong_method(head, "POST") or self._json(head, self._index())
        if path in fixed:
            return _wrong_method(head, "GET") or self._json(head, fixed[path]())
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            raise UsageError("not_found", f"no such path: {head.path[:200]}")
        model, number, action = match.groups()
        self._check_names(model, number)
        if action in ("infer", "feedback"):
            refused = _wrong_method(head, "POST")
            if refused:
                return refused
            return Verdict.POOL if action == "infer" else self._feedback(head, connection)
        return _wrong_method(head, "GET") or self._json(head, None if action else self._model_metadata())

    def _check_names(self, model: str, number: str | None) -> None:
        if model != self._model:
            names = sorted({served.name for served in self._served()} | {self._model})
            raise UsageError("not_found", f"model {model!r} is not served here; {', '.join(map(repr, names))} is")
        if number not in (None, self._number):
            raise UsageError("not_found", f"version {number!r} does not serve; {self._number} does")

    def _json(self, head: RequestHead, document: Any) -> Response:
        body = b"" if document is None else msgspec.json.encode(document)
        return Response(200, [_JSON, *self._fields], [body], keep_alive=head.keep_alive)

    def _server_metadata(self) -> dict[str, Any]:
        return {"name": "wavegate", "version": __version__, "extensions": ["binary_tensor_data"]}

    def _index(self) -> list[dict[str, str]]:
        known = {served.name: served.version for served in self._served()} | {self._model: int(self._number)}
        return [
            {"name": name, "version": str(version), "state": "READY", "reason": ""}
            for name, version in sorted(known.items())
        ]

    def _model_metadata(self) -> dict[str, Any]:
        manifest = self._version.manifest
        return {
            "name": self._model,
            "versions": [self._number],
            "platform": "onnxruntime_onnx",
            "inputs": [msgspec.to_builtins(spec) for spec in manifest.inputs],
            "outputs": [msgspec.to_builtins(spec) for spec in manifest.outputs],
            "parameters": {**self._parameters, "labels": manifest.labels},
        }

    def _feedback(self, head: RequestHead, connection: Connection) -> Response | Verdict:
        feedback = parse_feedback(_body(connection, _MAX_FEEDBACK_BYTES))
        if feedback.id not in self._ring:
            self.on_unknown()
        if self.settling and feedback.id not in self._ring:
            return Verdict.HOLD
        with self._ring_lock:
            prediction, first = self._ring.label(feedback.id, len(feedback.labels))
        metric = self._version.manifest.metric
        try:
            scores = [score(metric, row, label) for row, label in zip(prediction.rows(), feedback.labels, strict=True)]
        except _FAULTS as error:
            raise UsageError("invalid", f"the label does not fit the metric {metric.name}") from error
        if first:
            for value in scores:
                self._counts.add_score(prediction.version, value)
        answer = {
            "id": feedback.id,
            "model_version": str(prediction.version),
            "metric": metric.name,
            "scores": scores,
            "repeated": not first,
        }
        return self._json(head, answer)

    # --- pool threads -------------------------------------------------------------------------------------------------

    def work(self, connection: Connection) -> Response:
        """Answer an inference request; counts it when the answer is written."""
        head = connection.head
        keep_alive = head is not None and head.keep_alive
        own, cpu = False, time.thread_time()
        try:
            own = self.own.recognise(head)
            request = self._parsed(connection)
            outputs = self._version.infer(request.inputs)
            response = self._answer(request, outputs, keep_alive=keep_alive)
        except HttpError as error:
            return error_response(error.status, "invalid", error.message, keep_alive=keep_alive)
        except UsageError as error:
            return error_response(status_of(error), error.code, error.detail, keep_alive=keep_alive)
        except WavegateError as error:
            response = error_response(status_of(error), error.code, error.detail, keep_alive=keep_alive)
        except _FAULTS as error:
            detail = f"{type(error).__name__}: {error}"[:300]
            response = error_response(500, "inference_failed", detail, keep_alive=keep_alive)
        failed = response.status >= 500
        start = connection.received_at
        if own:
            self._counts.discount((time.thread_time() - cpu) * 1000)
            return self.own.answer(response, (time.monotonic() - start) * 1000)
        response.written = lambda _: self._counts.count((time.monotonic() - start) * 1000, failed=failed)
        return response

    def _parsed(self, connection: Connection) -> InferRequest:
        fields = connection.head.fields if connection.head else {}
        length = fields.get(_HEADER_LENGTH.lower())
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
            raise UsageError("invalid", f"{_HEADER_LENGTH} is not a number")
        return parse_request(_body(connection, MAX_BODY_BYTES), None if length is None else int(length))

    def _answer(self, request: InferRequest, outputs: dict[str, Array], *, keep_alive: bool) -> Response:
        wanted = request.outputs or tuple(Wanted(name, request.binary) for name in outputs)
        unknown = [want.name for want in wanted if want.name not in outputs]
        if unknown:
            raise UsageError("invalid", f"no output {unknown[0]!r}; there are {sorted(outputs)}")
        tensors = [from_array(want.name, outputs[want.name], binary=want.binary) for want in wanted]
        number = self._version.manifest.version
        header, pieces = render_response(request, self._model, number, self._parameters, tensors)
        if request.id:
            self._remember(request.id, next(iter(outputs.values())))
        kind = [_JSON] if header is None else [_BINARY, (_HEADER_LENGTH, str(header))]
        return Response(200, [*kind, *self._fields], pieces, keep_alive=keep_alive)

    def _remember(self, request_id: str, output: Array) -> None:
        if output.dtype.kind not in "fiub" or output.size == 0:
            return
        samples = int(output.shape[0]) if output.ndim else 1
        data = np.ascontiguousarray(output, dtype=np.float32).tobytes()
        prediction = Prediction(request_id, self._version.manifest.version, samples, data)
        self.remember(prediction)
        self.on_prediction(prediction)


def model_of(head: RequestHead) -> str | None:
    """The model that a request's path names; None where it names none."""
    match = _MODEL_PATH.fullmatch(head.path.rstrip("/"))
    return match.group(1) if match else None


def _body(connection: Connection, max_bytes: int) -> bytes | bytearray | memoryview:
    """The request's body without its content coding. Raises HttpError."""
    fields = connection.head.fields if connection.head else {}
    return decoded(connection.body, fields.get("content-encoding", ""), max_bytes)


def _wrong_method(head: RequestHead, allowed: str) -> Response | None:
    if head.method == allowed:
        return None
    return error_response(405, "invalid", f"{head.method} is not {allowed}", keep_alive=head.keep_alive)
