"""Waiting for what other threads and processes bring about: their effect is all there is to look at."""

import threading
import time
from collections.abc import Callable

__all__ = ["wait_until"]

_PAUSE = threading.Event()


def wait_until(
    condition: Callable[[], object], what: str = "the condition", *, timeout_s: float = 90.0, every_s: float = 0.01
) -> None:
    """Return as soon as the condition holds.

    Args:
        condition: looked at every `every_s` seconds; any true value ends the wait.
        what: names the condition in the failure.
        timeout_s: how long the condition may take, in seconds.
        every_s: time between two looks, in seconds.

    Raises:
        AssertionError: the condition did not hold in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s:g} s"
        _PAUSE.wait(every_s)
