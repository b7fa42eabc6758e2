"""One client connection: reads exactly one request at a time and never a byte of the next.

Heads are peeked before they are taken, so what follows a request stays in the kernel's buffer and moves with the socket
when it is handed to another worker. Not here: which connections exist (`http_listener.py`), what a request means.
"""

import contextlib
import enum
import socket
import time
from collections.abc import Callable

from wavegate_agent.core.http1 import (
    CONTINUE,
    MAX_HEAD_BYTES,
    HttpError,
    RequestHead,
    find_end,
    parse_request,
    render_response,
)
from wavegate_agent.core.oip import error_body
from wavegate_agent.core.request_body import ChunkedBody

__all__ = ["READ_TIMEOUT_S", "WRITE_TIMEOUT_S", "Connection", "Response", "State", "error_response"]

READ_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 30.0
_LINGER_S = 2.0
_READ_BYTES = 256 * 1024
_LARGE_BODY_BYTES = 1 << 20


class State(enum.Enum):
    """Where a connection stands in its current request; ELSEWHERE: another worker answers it, nothing of it was taken yet."""

    HEAD = "head"
    BODY = "body"
    BUSY = "busy"
    WRITING = "writing"
    LINGER = "linger"
    ELSEWHERE = "elsewhere"
    CLOSED = "closed"


class Response:
    """What to send back. `written` is called once with True when the last byte went out, else with False."""

    __slots__ = ("close", "pieces", "status", "written")

    def __init__(
        self,
        status: int,
        fields: list[tuple[str, str]],
        pieces: list[bytes | memoryview],
        *,
        keep_alive: bool,
        written: Callable[[bool], None] | None = None,
    ) -> None:
        self.status = status
        self.close = not keep_alive
        length = sum(len(piece) for piece in pieces)
        self.pieces: list[memoryview] = [
            memoryview(render_response(status, fields, length, keep_alive=keep_alive)),
            *(memoryview(piece) for piece in pieces if len(piece)),
        ]
        self.written = written


def error_response(status: int, code: str, message: str, *, keep_alive: bool) -> Response:
    """An error with its stable code."""
    return Response(status, [("Content-Type", "application/json")], [error_body(code, message)], keep_alive=keep_alive)


def _answers_all(_: RequestHead) -> bool:
    return True


class Connection:
    """A client's socket and the request being read from it or answered on it."""

    __slots__ = (
        "_searched",
        "body",
        "chunks",
        "closes",
        "deadline",
        "filled",
        "head",
        "head_bytes",
        "idle_since",
        "number",
        "received_at",
        "response",
        "sock",
        "state",
        "unclaimed",
    )

    def __init__(self, sock: socket.socket, number: int, head_bytes: bytes = b"") -> None:
        sock.setblocking(False)
        self.sock = sock
        self.number = number
        self.state = State.HEAD
        self.head_bytes = bytearray(head_bytes)
        self._searched = 0
        self.head: RequestHead | None = None
        self.body = bytearray()
        self.chunks: ChunkedBody | None = None
        self.filled = 0
        self.deadline: float | None = None
        self.received_at = 0.0
        self.response: Response | None = None
        self.unclaimed: int | None = None
        self.closes = False
        self.idle_since = time.monotonic()
        if head_bytes:
            self.deadline = time.monotonic() + READ_TIMEOUT_S

    def read(self, max_body: int, room: Callable[[], int], here: Callable[[RequestHead], bool] = _answers_all) -> bool:
        """Read what is there; True when a whole request is (state BUSY), False to wait for more, or when CLOSED or ELSEWHERE.

        Args:
            max_body: longest body read, in bytes.
            room: bytes all unfinished bodies together may still take; asked only for large ones.
            here: whether a request with this head is answered by this worker.

        Raises:
            HttpError: the request cannot be served; answer and close.
        """
        try:
            if self.state is State.HEAD and not self._read_head(max_body, room, here):
                return False
            return self._read_body() if self.chunks is None else self._read_chunks(self.chunks, room)
        except (ConnectionError, TimeoutError):
            self.close()
            return False
        except BlockingIOError:
            return False

    def _read_head(self, max_body: int, room: Callable[[], int], here: Callable[[RequestHead], bool]) -> bool:
        seen = self.sock.recv(MAX_HEAD_BYTES, socket.MSG_PEEK)
        if not seen:
            self.close()
            return False
        before = len(self.head_bytes)
        self.head_bytes += seen
        end = find_end(self.head_bytes, self._searched)
        if end < 0:
            self._searched = len(self.head_bytes)
            self.sock.recv(len(seen))
            self.deadline = self.deadline or time.monotonic() + READ_TIMEOUT_S
            if len(self.head_bytes) > MAX_HEAD_BYTES:
                raise HttpError(431, f"the head is longer than {MAX_HEAD_BYTES} bytes")
            return False
        head = parse_request(self.head_bytes[:end])
        if not here(head):
            del self.head_bytes[before:]  # the rest is still in the kernel, for the worker that gets the connection
            self.head, self.state = head, State.ELSEWHERE
            return False
        self.sock.recv(end - before)
        del self.head_bytes[end:]
        if head.length > max_body:
            raise HttpError(413, f"a body of {head.length} bytes; at most {max_body} are read")
        if head.length > _LARGE_BODY_BYTES and head.length > room():
            raise HttpError(503, "too many large requests at once; try again")
        if head.wants_continue and (head.length or head.chunked):
            self.sock.send(CONTINUE)
        self.head = head
        self.chunks = ChunkedBody(max_body) if head.chunked else None
        self.body = bytearray(head.length) if self.chunks is None else self.chunks.data
        self.filled = 0
        self.state = State.BODY
        self.deadline = self.deadline or time.monotonic() + READ_TIMEOUT_S
        return True

    def _read_body(self) -> bool:
        if self.filled < len(self.body):
            with memoryview(self.body) as view:
                got = self.sock.recv_into(view[self.filled : self.filled + _READ_BYTES])
            if not got:
                self.close()
                return False
            self.filled += got
        if self.filled < len(self.body):
            return False
        return self._whole()

    def _read_chunks(self, chunks: ChunkedBody, room: Callable[[], int]) -> bool:
        """Chunks are peeked before they are taken, as heads are: not a byte of the next request is read."""
        seen = self.sock.recv(_READ_BYTES, socket.MSG_PEEK)
        if not seen:
            self.close()
            return False
        belongs = chunks.feed(seen)
        self.sock.recv(belongs)
        self.filled = len(chunks.data)
        if self.filled > _LARGE_BODY_BYTES and room() < 0:
            raise HttpError(503, "too many large requests at once; try again")
        return self._whole() if chunks.done else False

    def _whole(self) -> bool:
        self.state = State.BUSY
        self.deadline = None
        self.received_at = time.monotonic()
        return True

    def start_writing(self, response: Response) -> bool:
        """Send an answer; True when all of it went out, False when the socket is full or CLOSED.

        Any thread, but only the one that has the request.
        """
        self.response = response
        self.closes = response.close
        self.state = State.WRITING
        self.deadline = time.monotonic() + WRITE_TIMEOUT_S
        return self.write()

    def write(self) -> bool:
        """Go on sending; same answer as `start_writing`."""
        response = self.response
        if response is None:
            return True
        pieces = response.pieces
        try:
            while pieces:
                sent = self.sock.sendmsg(pieces[:16])
                while pieces and sent >= len(pieces[0]):
                    sent -= len(pieces.pop(0))
                if sent:
                    pieces[0] = pieces[0][sent:]
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        self._told(sent_all=True)
        return True

    def next_request(self) -> None:
        """Back to reading after an answer on a connection that stays open."""
        self.state = State.HEAD
        self.head_bytes.clear()
        self._searched = 0
        self.head = None
        self.body = bytearray()
        self.chunks = None
        self.filled = 0
        self.response = None
        self.deadline = None
        self.idle_since = time.monotonic()

    def start_linger(self) -> None:
        """Say that no more comes, and read away what the client still sends, or it may never see the answer."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.state = State.LINGER
        self.deadline = time.monotonic() + _LINGER_S

    def read_away(self) -> None:
        """Drop bytes of a client that was refused."""
        try:
            if not self.sock.recv(_READ_BYTES):
                self.close()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """End the conversation; an answer not fully sent counts as not written.

        The descriptor stays until `release`: the loop must stop watching it first, because another process may hold a
        copy and the kernel would go on reporting events for a number that means another connection by then.
        """
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._told(sent_all=False)
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # the client sees the end now, whoever holds a copy

    def release(self) -> None:
        """Close this process's descriptor; the connection may live on in another process."""
        self.state = State.CLOSED
        self.sock.close()

    def _told(self, *, sent_all: bool) -> None:
        response, self.response = self.response, None
        if response is not None and response.written is not None:
            response.written(sent_all)
