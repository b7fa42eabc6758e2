"""The listening sockets of one slot. They live in the agent, so clients can connect while no worker accepts."""

import contextlib
import os
import socket
from pathlib import Path

__all__ = ["ListeningSockets"]

_BACKLOG = 256
_UNIX_MODE = 0o660


class ListeningSockets:
    """A unix socket (mode 0660) and optionally a TCP socket on loopback.

    Raises:
        OSError: another agent listens there, or the path cannot be bound.
    """

    def __init__(self, unix_path: Path, tcp_port: int | None) -> None:
        self._path = unix_path
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
            self._path.unlink()


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
