"""Asking the server over MQTT: chunks, documents and the time, each as request and frames.

Requests go out on `rq`, answers come in on `c` (frames, by transfer number) and on `cmd` (the time). Calls block the caller's
thread; `frame` and `time_answer` are called from the network thread. Nothing here is trusted: chunks are checked against the
signed manifest, documents by TUF, the time by its signature.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wavegate_agent.adapters.disk.version_store import Staging
from wavegate_agent.core.fetch_plan import FetchPlan
from wavegate_shared.chunks import CHUNK_BYTES, Form, Frame
from wavegate_shared.errors import TransferError
from wavegate_shared.manifest import Artifact
from wavegate_shared.wire import ChunkRequest, DocumentRequest, TimeRequest, encode

__all__ = ["Downloads"]

DOCUMENT_WAIT_S = (2.0, 4.0, 8.0)
TIME_WAIT_S = 10.0
_QUEUE_FRAMES = 24
_LOOK_S = 0.25
"""How often a blocked transfer looks whether it is still wanted."""


class Downloads:
    """All downloads of this device.

    Args:
        send: publishes a request; False when there is no connection.
    """

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        self._send = send
        self._numbers = itertools.count(int(time.monotonic() * 1000) % 2**31)
        self._open: dict[int, queue.Queue[Frame]] = {}
        self._lock = threading.Lock()
        self._times: queue.Queue[bytes] = queue.Queue(4)

    def frame(self, data: bytes) -> None:
        """A message of the `c` topic. Frames of no open transfer, damaged or surplus, are dropped: they are asked again."""
        try:
            frame = Frame.decode(data)
        except TransferError:
            return
        with self._lock:
            waiting = self._open.get(frame.xfer)
        if waiting is not None:
            try:
                waiting.put_nowait(frame)
            except queue.Full:
                return

    def time_answer(self, envelope: bytes) -> None:
        """A `TimeAnswer` came."""
        try:
            self._times.put_nowait(envelope)
        except queue.Full:
            return

    def document(self, name: str, max_bytes: int) -> bytes:
        """A metadata document; at most `max_bytes` + 1 bytes of it, so that a caller sees when it is too long.

        Raises:
            TransferError: `document_missing`, `not_connected` or `transfer_stalled`.
        """
        data = b""
        total: int | None = None
        while total is None or len(data) < min(total, max_bytes + 1):
            frame = self._part(name, len(data))
            if total is not None and frame.total != total:  # it was replaced meanwhile: begin again
                data, total = b"", None
                continue
            if frame.total == 0:
                return b""
            if not frame.payload:
                raise TransferError("transfer_stalled", f"{name}: an empty part at {len(data)} of {frame.total}")
            total = frame.total
            data += frame.payload
        return data[: max_bytes + 1]

    def chunks(
        self, staging: Staging, artifact: Artifact, *, stop: Callable[[], bool], progress: Callable[[int], None]
    ) -> None:
        """Fetch what is missing of one artifact.

        Args:
            staging: where chunks go, checked there.
            artifact: as in the signed manifest.
            stop: when true, return early.
            progress: called with the bytes of each chunk that was written.

        Raises:
            TransferError: `not_connected` or `transfer_stalled`; what arrived is kept.
            DeviceError: `disk_full`.
        """
        missing = staging.missing(artifact)
        if not missing:
            return
        plan = FetchPlan(missing, time.monotonic())
        with self._transfer() as (xfer, frames):
            while not plan.done and not stop():
                indexes = plan.ask(time.monotonic())
                if indexes:
                    self._request(ChunkRequest(xfer=xfer, sha256=artifact.sha256, indexes=indexes))
                frame = _next(frames, min(_LOOK_S, max(0.0, plan.deadline - time.monotonic())))
                if frame is not None:
                    self._take(frame, plan, staging, artifact, progress)

    def ask_time(self, nonce: str) -> bytes:
        """The envelope answering a nonce challenge. Raises TransferError `not_connected` when none comes."""
        while not self._times.empty():
            self._times.get_nowait()
        self._request(TimeRequest(nonce=nonce))
        try:
            return self._times.get(timeout=TIME_WAIT_S)
        except queue.Empty:
            raise TransferError("not_connected", f"no time answer within {TIME_WAIT_S:g} s") from None

    def _take(
        self, frame: Frame, plan: FetchPlan, staging: Staging, artifact: Artifact, progress: Callable[[int], None]
    ) -> None:
        if frame.form is Form.MISSING:
            raise TransferError(
                "document_missing", f"the server does not have {artifact.name} ({artifact.sha256[:12]})"
            )
        if frame.form is not Form.RAW or frame.index >= len(artifact.chunks) or frame.index not in plan:
            return
        try:
            staging.write(artifact, frame.index, frame.payload)
        except TransferError:
            plan.damaged(frame.index)
            return
        plan.arrived(frame.index, time.monotonic())
        progress(len(frame.payload))

    def _part(self, name: str, offset: int) -> Frame:
        with self._transfer() as (xfer, frames):
            for wait in DOCUMENT_WAIT_S:
                self._request(DocumentRequest(xfer=xfer, name=name, offset=offset, max_bytes=CHUNK_BYTES))
                until = time.monotonic() + wait
                while (left := until - time.monotonic()) > 0:
                    frame = _next(frames, left)
                    if frame is not None and frame.form is Form.MISSING:
                        raise TransferError("document_missing", name)
                    if frame is not None and frame.form is Form.DOCUMENT and frame.offset == offset:
                        return frame
        raise TransferError("transfer_stalled", f"{name}: no answer after {len(DOCUMENT_WAIT_S)} requests")

    def _request(self, message: ChunkRequest | DocumentRequest | TimeRequest) -> None:
        if not self._send(encode(message)):
            raise TransferError("not_connected")

    @contextmanager
    def _transfer(self) -> Iterator[tuple[int, "queue.Queue[Frame]"]]:
        frames: queue.Queue[Frame] = queue.Queue(_QUEUE_FRAMES)
        with self._lock:
            xfer = next(self._numbers) % 2**32
            self._open[xfer] = frames
        try:
            yield xfer, frames
        finally:
            with self._lock:
                del self._open[xfer]


def _next(frames: "queue.Queue[Frame]", timeout_s: float) -> Frame | None:
    try:
        return frames.get(timeout=max(0.001, timeout_s))
    except queue.Empty:
        return None
