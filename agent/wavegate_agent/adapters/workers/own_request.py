"""One of the agent's own requests: the worker writes its body, and it goes through the public socket as an application's does.

Control side, so without numpy. Not here: when to send one (`control/idle_proof.py`), how the worker knows it again
(`adapters/serving/own_requests.py`).
"""

import os
import socket
from pathlib import Path

from wavegate_agent.adapters.workers.process import WorkerProcess
from wavegate_agent.core.http1 import HttpError, ResponseHead, find_end, parse_response, render_request
from wavegate_agent.core.oip import OWN_FIELD, OWN_LATENCY_FIELD
from wavegate_agent.core.probation import OwnAnswer
from wavegate_agent.core.worker_messages import OwnRequest
from wavegate_shared.errors import DeviceError

__all__ = ["TIMEOUT_S", "send_own_request"]

TIMEOUT_S = 10.0
"""For the worker to write the request, and again for each read of the answer."""
_MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024


def send_own_request(process: WorkerProcess, unix_path: Path, sample: int) -> OwnAnswer | None:
    """Send golden sample number `sample` to the version of `process`.

    Returns:
        How it ended; None when it says nothing about this version: its worker is gone or busy, or the request was refused
        (another worker got it, or the sample is not what the API takes).
    """
    body = os.memfd_create("wavegate-own-request")
    try:
        try:
            done = process.call(
                lambda call: OwnRequest(call=call, sample=sample), [body], timeout_s=TIMEOUT_S, spare=True
            )
        except DeviceError:
            return None
        fields = [("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(done.left))]
        fields += [(OWN_FIELD, done.text), ("Connection", "close")]
        size = os.fstat(body).st_size
        head = render_request("POST", f"/v2/models/{process.manifest.model}/infer", "wavegate", fields, size)
        try:
            answer = _exchange(unix_path, head, body, size)
        except (OSError, EOFError, HttpError):
            return OwnAnswer(failed=True)
    finally:
        os.close(body)
    if 400 <= answer.status < 500:
        return None
    latency = answer.fields.get(OWN_LATENCY_FIELD.lower())
    return OwnAnswer(failed=answer.status >= 500, latency_ms=float(latency) if latency else None)


def _exchange(unix_path: Path, head: bytes, body: int, size: int) -> ResponseHead:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(str(unix_path))
        sock.sendall(head)
        with open(body, "rb", closefd=False) as file:
            file.seek(0)
            sock.sendfile(file, 0, size)
        data = bytearray()
        while (end := find_end(data)) < 0:
            more = sock.recv(_READ_BYTES)
            if not more or len(data) > _MAX_HEAD_BYTES:
                raise EOFError("no whole answer")
            data += more
        answer = parse_response(data[:end])
        left = answer.length - (len(data) - end)
        while left > 0:  # an application reads its answer too
            more = sock.recv(_READ_BYTES)
            if not more:
                raise EOFError("no whole answer")
            left -= len(more)
        return answer
