"""The data plane's event loop: accept, read requests, let a pool answer them, write, hand connections over.

One thread owns every connection that waits for the network; a connection whose request is being answered belongs to the
pool thread that answers it, and comes back through a queue. Control events (the channel to the agent, the channel to
another worker) are handled last in each batch: a hand-over moves connections, and an event of the same batch that still
named one of them once killed a worker with a request in flight.
"""

import contextlib
import enum
import logging
import os
import queue
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from wavegate_agent.adapters.serving.connections import Connection, Response, State, error_response
from wavegate_agent.adapters.serving.inbox import receive_connection
from wavegate_agent.core.http1 import HttpError, RequestHead
from wavegate_agent.core.oip import MAX_BODY_BYTES

__all__ = ["MAX_CONNECTIONS", "Handler", "HttpListener", "Verdict"]

MAX_CONNECTIONS = 512
_MAX_BODIES_BYTES = 4 * MAX_BODY_BYTES
_EVICT_IDLE_S = 60.0
_ACCEPTS = 64
_TICK_S = 1.0
_CODES = {413: "too_large", 503: "not_ready"}

_log = logging.getLogger(__name__)


class Verdict(enum.Enum):
    """What to do with a request that is not answered at once."""

    POOL = "pool"
    HOLD = "hold"


class Handler(Protocol):
    """Who knows what requests mean."""

    def quick(self, connection: Connection) -> Response | Verdict:
        """Answer on the loop's thread, or send it to the pool, or hold it until `release_held`."""
        ...

    def work(self, connection: Connection) -> Response:
        """Answer on a pool thread; must not raise."""
        ...


class HttpListener:
    """Connections, loop and pool of one worker.

    Args:
        on_boundary: asked with each connection after its answer, before the next read; True when it was given away.
        on_closed: told after a connection ended.
        here: asked with each request's head whether this worker answers it.
        on_elsewhere: gets each connection whose request it does not; True when the connection was sent on.
    """

    def __init__(self) -> None:
        self.on_boundary: Callable[[Connection], bool] = lambda _: False
        self.on_closed: Callable[[], None] = lambda: None
        self.on_first_read: Callable[[Connection], None] = lambda _: None
        self.here: Callable[[RequestHead], bool] = lambda _: True
        self.on_elsewhere: Callable[[Connection], bool] = lambda _: False
        self.in_flight = 0
        self.arrivals = 0
        self._handler: Handler | None = None
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._listeners: list[socket.socket] = []
        self._listening = False
        self._full = False
        self._next_number = 0
        self._held: list[Connection] = []
        self._work: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._finished: deque[Connection] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._tick_at = 0.0

    # --- set up -------------------------------------------------------------------------------------------------------

    def start_pool(self, concurrency: int) -> None:
        """Start the threads that answer; they wait until there is a handler and a request."""
        for index in range(concurrency):
            threading.Thread(target=self._run_pool, name=f"infer-{index}", daemon=True).start()

    def answer_with(self, handler: Handler) -> None:
        """Set who answers; until then every request is told that no version serves."""
        self._handler = handler

    def watch(self, channel: Any, callback: Callable[[], None]) -> None:
        """Call `callback`, last in its batch, when a control channel is readable."""
        self._selector.register(channel, selectors.EVENT_READ, callback)

    def unwatch(self, channel: Any) -> None:
        """Stop watching; before the channel is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(channel)

    def listen(self, listeners: Iterable[socket.socket] = ()) -> None:
        """Accept on these sockets, or again on the ones known."""
        for listener in listeners:
            listener.setblocking(False)
            self._listeners.append(listener)
        self._resume_accepting()

    def pause_listening(self) -> None:
        """Accept no more, keep the sockets."""
        self._full = False
        if self._listening:
            self._listening = False
            for listener in self._listeners:
                self._selector.unregister(listener)

    def drop_listeners(self) -> None:
        """Accept no more and close our copies of the listening sockets."""
        self.pause_listening()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _resume_accepting(self) -> None:
        self._full = False
        if not self._listening and self._listeners:
            self._listening = True
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ, listener)

    # --- connections --------------------------------------------------------------------------------------------------

    def adopt(self, sock: socket.socket, head_bytes: bytes = b"", unclaimed: int | None = None) -> Connection:
        """Serve a connection: a new one, or one from another worker with its number there."""
        self._next_number += 1
        connection = Connection(sock, self._next_number, head_bytes)
        connection.unclaimed = unclaimed
        self._connections[connection.number] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return connection

    def take_back(self, connections: Iterable[Connection]) -> None:
        """Serve connections again that were released."""
        for connection in connections:
            self._connections[connection.number] = connection
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)

    def release_idle(self) -> list[Connection]:
        """Every connection that waits for a request, no longer served here."""
        idle = [connection for connection in self._connections.values() if connection.state is State.HEAD]
        for connection in idle:
            self._selector.unregister(connection.sock)
            del self._connections[connection.number]
        return idle

    @property
    def unfinished(self) -> int:
        """Connections with a request that was begun and not answered yet."""
        return sum(
            connection.state in (State.BODY, State.BUSY, State.WRITING) for connection in self._connections.values()
        )

    def release_held(self) -> None:
        """Ask the handler again about the requests it held."""
        held, self._held = self._held, []
        for connection in held:
            self._dispatch(connection)

    def close_idle(self) -> None:
        """Close every connection that waits for a request."""
        for connection in self.release_idle():
            connection.close()
            connection.release()

    def close(self) -> None:
        """Close every socket; a worker does not call it, it exits."""
        self.drop_listeners()
        for connection in self._connections.values():
            connection.close()
            connection.release()
        self._connections.clear()
        self._selector.close()
        os.close(self._wake)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run_once(self, timeout_s: float = _TICK_S) -> None:
        """Wait for events and handle one batch."""
        control: list[Callable[[], None]] = []
        for key, _ in self._selector.select(timeout_s):
            if isinstance(key.data, Connection):
                if self._connections.get(key.data.number) is key.data:
                    self._ready(key.data)
            elif isinstance(key.data, socket.socket):
                self._accept(key.data)
            elif key.data is not None:
                control.append(key.data)
        self._take_finished()
        for callback in control:
            callback()
        self._tick()

    def _ready(self, connection: Connection) -> None:
        if connection.state is State.WRITING:
            if connection.write():
                self._selector.unregister(connection.sock)
                self._answered(connection)
                return
        elif connection.state is State.LINGER:
            connection.read_away()
        elif self._read(connection):
            return
        self._sweep(connection)

    def _read(self, connection: Connection) -> bool:
        """Read on; True when the connection is not watched any more."""
        if connection.unclaimed is not None:
            self.on_first_read(connection)
            connection.unclaimed = None
        try:
            whole = connection.read(MAX_BODY_BYTES, self._room, self.here)
        except HttpError as error:
            self._selector.unregister(connection.sock)
            self._refuse(connection, error)
            return True
        if connection.state is State.ELSEWHERE:
            self._selector.unregister(connection.sock)
            self._send_on(connection)
            return True
        if whole:
            self._selector.unregister(connection.sock)
            self._dispatch(connection)
        return whole

    def _send_on(self, connection: Connection) -> None:
        if self.on_elsewhere(connection):
            del self._connections[connection.number]
            connection.release()
            return
        self._refuse(connection, HttpError(503, "the worker of this model takes no connections now; try again"))

    def _sweep(self, connection: Connection) -> None:
        """Let go of a connection that ended while it was watched."""
        if connection.state is State.CLOSED:
            self._selector.unregister(connection.sock)
            self._gone(connection)

    def _dispatch(self, connection: Connection) -> None:
        if self._handler is None:
            self._reply(connection, error_response(503, "not_ready", "no version serves yet", keep_alive=False))
            return
        verdict = self._handler.quick(connection)
        if isinstance(verdict, Response):
            self._reply(connection, verdict)
        elif verdict is Verdict.HOLD:
            self._held.append(connection)
        else:
            self.in_flight += 1
            self.arrivals += 1
            self._work.put(connection)

    def _refuse(self, connection: Connection, error: HttpError) -> None:
        code = _CODES.get(error.status, "invalid")
        self._reply(connection, error_response(error.status, code, error.message, keep_alive=False), linger=True)

    def _reply(self, connection: Connection, response: Response, *, linger: bool = False) -> None:
        if connection.start_writing(response):
            self._answered(connection, linger=linger)
        elif connection.state is State.CLOSED:
            self._gone(connection)
        else:
            self._selector.register(connection.sock, selectors.EVENT_WRITE, connection)

    def _answered(self, connection: Connection, *, linger: bool = False) -> None:
        """After the last byte of an answer; the connection is not registered."""
        if connection.closes:
            if linger:
                connection.start_linger()
            else:
                connection.close()
            if connection.state is State.LINGER:
                self._selector.register(connection.sock, selectors.EVENT_READ, connection)
            else:
                self._gone(connection)
            return
        connection.next_request()
        del self._connections[connection.number]  # first: giving it away may fail and bring it back
        if not self.on_boundary(connection):
            self.take_back([connection])

    def _gone(self, connection: Connection) -> None:
        connection.release()
        if self._connections.pop(connection.number, None) is not None:
            self.on_closed()

    def _take_finished(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._finished:
            connection = self._finished.popleft()
            self.in_flight -= 1
            if connection.state is State.CLOSED:
                self._gone(connection)
            elif connection.response is None:
                self._answered(connection)
            else:
                self._selector.register(connection.sock, selectors.EVENT_WRITE, connection)

    def _run_pool(self) -> None:
        while True:
            connection = self._work.get()
            if self._handler is not None:
                connection.start_writing(self._handler.work(connection))
            self._finished.append(connection)
            os.eventfd_write(self._wake, 1)

    # --- accepting and time -------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            guest = self._longest_idle() if len(self._connections) >= MAX_CONNECTIONS else None
            if len(self._connections) >= MAX_CONNECTIONS and guest is None:
                self._wait_for_room()
                return
            head = b""
            try:
                if listener.type == socket.SOCK_SEQPACKET:
                    sock, head = receive_connection(listener)
                else:
                    sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                _log.warning("accept_failed error=%s", error)
                self._wait_for_room()
                return
            if guest is not None:
                self._evict(guest)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self.adopt(sock, head)
            if listener.type == socket.SOCK_SEQPACKET:
                self._ready(connection)  # its request is there: that is why it was sent

    def _wait_for_room(self) -> None:
        """Let clients wait in the backlog until the next tick."""
        self.pause_listening()
        self._full = True

    def _longest_idle(self) -> Connection | None:
        idle = [c for c in self._connections.values() if c.state is State.HEAD and not c.head_bytes]
        oldest = min(idle, key=lambda c: c.idle_since, default=None)
        return oldest if oldest and time.monotonic() - oldest.idle_since >= _EVICT_IDLE_S else None

    def _evict(self, guest: Connection) -> None:
        self._selector.unregister(guest.sock)
        guest.close()
        self._gone(guest)

    def _room(self) -> int:
        return _MAX_BODIES_BYTES - sum(len(connection.body) for connection in self._connections.values())

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._tick_at:
            return
        self._tick_at = now + _TICK_S
        if self._full:
            self._resume_accepting()
        late = [c for c in self._connections.values() if c.deadline is not None and c.deadline < now]
        for connection in late:
            self._expire(connection)

    def _expire(self, connection: Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        if connection.state in (State.HEAD, State.BODY):
            self._refuse(connection, HttpError(408, "the request did not arrive in time"))
            return
        connection.close()
        self._gone(connection)
