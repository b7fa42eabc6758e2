"""The status socket: a local program connects, gets one JSON object, and the connection ends. It takes no orders."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from wavegate_shared.errors import UsageError

__all__ = ["StatusSocket", "read_status"]

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 5.0


class StatusSocket:
    """Answers `wavegate-agent status`.

    Args:
        path: of the unix socket, mode 0660; replaced when it is there.
        status: what to answer; called on this socket's thread.
    """

    def __init__(self, path: Path, status: Callable[[], Mapping[str, object]]) -> None:
        self._path, self._status = path, status
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        path.chmod(0o660)
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and remove the socket."""
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(_TIMEOUT_S)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection:
                connection.settimeout(_TIMEOUT_S)
                try:
                    connection.sendall(json.dumps(self._status()).encode() + b"\n")
                except OSError as error:
                    _LOG.debug("status_not_sent error=%s", error)


def read_status(path: Path) -> dict[str, object]:
    """What the agent behind `path` says.

    Raises:
        UsageError: `setup` when no agent answers there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_TIMEOUT_S)
        try:
            client.connect(str(path))
            data = b"".join(iter(lambda: client.recv(65536), b""))
            answer = json.loads(data)
        except (OSError, ValueError) as error:
            raise UsageError("setup", f"no agent answers at {path} ({error}); is it running?") from error
    if not isinstance(answer, dict):
        raise UsageError("setup", f"{path} does not answer like an agent")
    return answer
