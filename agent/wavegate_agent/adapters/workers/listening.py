"""The sockets that clients connect to, and the way from one model's worker to another's.

All models of a device share its listening sockets: whichever worker is free accepts. A worker that finds a request for another
model in a connection sends the connection, nothing of the request taken from it, to that model's *inbox*. Sockets and inboxes live
in the agent: clients can connect, and connections can be sent on, while no worker is there to read them.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from wavegate_agent.core.worker_messages import ServedModel

__all__ = ["DeviceSockets", "ListeningSockets", "SlotSockets"]

_BACKLOG = 256
_UNIX_MODE = 0o660


class ListeningSockets:
    """A unix socket at `path` (mode 0660) and optionally a TCP socket on loopback.

    Raises:
        OSError: another agent listens there, or the path cannot be bound.
    """

    def __init__(self, unix_path: Path, tcp_port: int | None) -> None:
        self.path = unix_path
        self._sockets = [_unix(unix_path)]
        if tcp_port is not None:
            try:
                self._sockets.append(_tcp(tcp_port))
            except OSError:
                self.close()
                raise

    @property
    def descriptors(self) -> list[int]:
        """To send along with `Serve`."""
        return [sock.fileno() for sock in self._sockets]

    @property
    def tcp_port(self) -> int | None:
        """The port that was bound, None without TCP."""
        return int(self._sockets[1].getsockname()[1]) if len(self._sockets) > 1 else None

    def close(self) -> None:
        """Close and remove the unix socket's name."""
        for sock in self._sockets:
            sock.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class DeviceSockets:
    """The listening sockets of a device, and which model is served by whom.

    Args:
        listening: owned from here on.
    """

    def __init__(self, listening: ListeningSockets) -> None:
        self.listening = listening
        self._lock = threading.Lock()
        self._slots: list[SlotSockets] = []

    def open(self, on_change: Callable[[], None]) -> "SlotSockets":
        """An inbox for one more slot. `on_change`: called, on any thread, when another slot's model or version changed."""
        slot = SlotSockets(self, on_change)
        with self._lock:
            self._slots.append(slot)
        return slot

    def routes(self) -> tuple[list[ServedModel], list[int]]:
        """The models that are served, and for each the descriptor that leads to its inbox."""
        with self._lock:
            serving = [slot for slot in self._slots if slot.served.version]
            return [slot.served for slot in serving], [slot.inbox.fileno() for slot in serving]

    def changed(self, by: "SlotSockets", *, gone: bool = False) -> None:
        """Tell every other slot that one slot serves something else now, or is gone."""
        with self._lock:
            if gone and by in self._slots:
                self._slots.remove(by)
            others = [slot for slot in self._slots if slot is not by]
        for slot in others:
            slot.on_change()

    def close(self) -> None:
        """Close the listening sockets; inboxes are closed by their slots."""
        self.listening.close()


class SlotSockets:
    """What one slot's workers read from: the device's listening sockets, and the slot's own inbox.

    Attributes:
        served: model and version in charge; version 0 while there is none, and then nothing is sent to the inbox.
        inbox: the end that other workers send to.
    """

    def __init__(self, device: DeviceSockets, on_change: Callable[[], None]) -> None:
        self.device = device
        self.on_change = on_change
        self.served = ServedModel("", 0)
        self.inbox, self._reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.inbox, self._reader):
            end.setblocking(False)

    @property
    def descriptors(self) -> list[int]:
        """To send along with `Serve`."""
        return [*self.device.listening.descriptors, self._reader.fileno()]

    def serve(self, model: str, version: int) -> None:
        """Say what is served here from now on; version 0: nothing."""
        served = ServedModel(model, version)
        if served != self.served:
            self.served = served
            self.device.changed(self)

    def close(self) -> None:
        """Close the inbox: connections that nobody took from it end. Twice is allowed."""
        self.served = ServedModel("", 0)
        self.device.changed(self, gone=True)
        self.inbox.close()
        self._reader.close()


def _unix(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~_UNIX_MODE)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


def _remove_stale(path: Path) -> None:
    """Remove the name a killed agent left; one that answers belongs to a running agent."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)


def _tcp(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock
