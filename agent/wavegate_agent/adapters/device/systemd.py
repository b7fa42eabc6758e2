"""systemd's notification protocol, without a library: READY, WATCHDOG, STOPPING, a status line.

Source: sd_notify(3). Without NOTIFY_SOCKET in the environment nothing is sent.
"""

import contextlib
import os
import socket

__all__ = ["notify", "watchdog_s"]


def notify(state: str) -> None:
    """Tell systemd `state`, as `READY=1`; never fails."""
    target = os.environ.get("NOTIFY_SOCKET", "")
    if not target:
        return
    address = "\0" + target[1:] if target.startswith("@") else target
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), address)


def watchdog_s() -> float | None:
    """Seconds systemd waits between signs of life, or None when it does not watch."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() and int(text) > 0 else None
