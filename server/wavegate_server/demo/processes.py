"""Starting and ending the demo's processes so that none outlives it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from wavegate_server.adapters.with_parent import end_with_parent
from wavegate_shared.errors import UsageError

__all__ = ["Processes", "command"]

_GRACE_S = 8.0


def command(name: str) -> str:
    """The path of a console script that was installed with this Python, as `wavegate-agent`."""
    beside = Path(sys.executable).with_name(name)
    if not beside.exists():
        raise UsageError("setup", f"{name} is not installed beside {sys.executable}; `make setup` installs both parts")
    return str(beside)


class Processes:
    """Children by name, each in a session of its own with a log file. Leaving the `with` block ends them, newest first.

    A child also gets SIGTERM when this process dies (PR_SET_PDEATHSIG), so even kill -9 leaves nothing behind.
    """

    def __init__(self, log_dir: Path) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start a child; its output goes to `<log_dir>/<name>.log`."""
        with self.log_path(name).open("ab") as log:
            self._children[name] = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def log_path(self, name: str) -> Path:
        """Where a child's output goes."""
        return self._log_dir / f"{name}.log"

    def check(self) -> None:
        """Raise UsageError `setup` when a child ended by itself, with the end of its log."""
        for name, child in self._children.items():
            if child.poll() is not None:
                tail = self.log_path(name).read_text(errors="replace").strip().splitlines()[-5:]
                raise UsageError("setup", f"{name} ended with {child.returncode}: " + " | ".join(tail))

    def stop(self, name: str) -> None:
        """End one child: SIGTERM, a grace period, then SIGKILL to its whole session."""
        child = self._children.pop(name)
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def stop_all(self) -> None:
        """End all children, newest first; all get SIGTERM before any is waited for."""
        for child in reversed(self._children.values()):
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
        for name in list(reversed(self._children)):
            self.stop(name)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
