"""The uplink thread: closes telemetry windows, says hello, sends what waits, feeds systemd's watchdog.

The watchdog is fed only when this thread's turns succeed and the step thread shows life: an agent that is stuck anywhere is
started again, and workers, who hold no state, with it.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from wavegate_agent.adapters import clock
from wavegate_agent.adapters.device.malloc import trim
from wavegate_agent.adapters.device.systemd import notify, watchdog_s
from wavegate_agent.control.outbox_sender import OutboxSender
from wavegate_agent.control.ports import Connection

__all__ = ["UplinkThread"]

_LOOK_S = 5.0
_STOP_S = 10.0


class Attempt(Protocol):
    """Runs something and gives back an error instead of raising it; falsy when it went well."""

    def __call__(self, act: Callable[[], None], /) -> object:
        """Run `act`."""


class UplinkThread:
    """What the agent says without being asked.

    Args:
        window_s: length of a telemetry window.
        windows: called with start and length of each window that is over.
        renewal: called in each turn, with whether there is a connection.
        hello: says the inventory.
        alive: whether the step thread shows signs of life.
    """

    def __init__(
        self,
        outbox_sender: OutboxSender,
        connection: Connection,
        *,
        window_s: float,
        windows: Callable[[datetime, float], None],
        renewal: Callable[[bool], None],
        hello: Callable[[], None],
        attempt: Attempt,
        alive: Callable[[], bool],
    ) -> None:
        self._outbox_sender, self._connection = outbox_sender, connection
        self._window_s, self._windows, self._hello = window_s, windows, hello
        self._attempt, self._alive, self._renewal = attempt, alive, renewal
        self._stopping, self._talk, self._say_hello = threading.Event(), threading.Event(), threading.Event()
        self._start, self._began = clock.now(), time.monotonic()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self) -> None:
        """Talk from now on; the first window begins."""
        self._start, self._began = clock.now(), time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Close the last window into the outbox and end the thread."""
        self._stopping.set()
        self._talk.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def wake(self, *, hello: bool = False) -> None:
        """There is something to say; `hello`: the inventory as well."""
        if hello:
            self._say_hello.set()
        self._talk.set()

    def _run(self) -> None:
        watchdog = watchdog_s()
        look = _LOOK_S if watchdog is None else min(_LOOK_S, watchdog / 3)
        while not self._stopping.is_set():
            self._talk.wait(max(0.0, min(look, self._window_s - (time.monotonic() - self._began))))
            self._talk.clear()
            failed = self._attempt(self._turn)
            if watchdog is not None and not failed and self._alive():
                notify("WATCHDOG=1")

    def _turn(self) -> None:
        seconds = time.monotonic() - self._began
        if seconds >= self._window_s or self._stopping.is_set():
            start, self._start, self._began = self._start, clock.now(), time.monotonic()
            self._windows(start, seconds)
            trim()
        if self._say_hello.is_set() and self._connection.connected:
            self._say_hello.clear()
            self._hello()
        self._outbox_sender.send(self._connection)
        self._renewal(self._connection.connected)
