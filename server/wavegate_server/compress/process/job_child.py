"""One child process with its output read by threads: lines to a queue, the end of its log in memory, bounded both.

A flood on either pipe neither blocks the child nor fills the server. Ending it is SIGTERM to its process group, a time to
clean up, then SIGKILL; it may be asked for at any point, and again.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

__all__ = ["GRACE_S", "Child", "Work"]

GRACE_S = 10.0
"""Time to clean up between SIGTERM and SIGKILL."""
_LINE_BYTES = 64 << 10
_LOG_BYTES = 16 << 10
_LINES = 1_000
_BLOCK = 4096


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A compression job as its process is told. Attributes: parent (pid of the server), used_s (time that attempts before this one took)."""

    parent: int
    bundle: str
    budget: str
    out: str
    result: str
    cache: str
    time_s: float
    used_s: float = 0.0
    device_class: str = ""


class Child:
    """A running `python -m module`. Attributes: pid."""

    def __init__(self, module: str, first_line: bytes, *, scratch: Path) -> None:
        """Start it with one line on its standard input; its temporary files go below `scratch`, which the caller removes."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **threads, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._lines: queue.Queue[bytes] = queue.Queue(_LINES)
        self._log = bytearray()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_log)]
        for reader in self._readers:
            reader.start()
        self.say(first_line)

    def say(self, line: bytes) -> None:
        """Give it a line; one that has ended hears nothing."""
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(BrokenPipeError):
                stdin.write(line + b"\n")
                stdin.flush()

    def line(self, wait_s: float) -> bytes | None:
        """The next line it printed, or None when none came in time."""
        with suppress(queue.Empty):
            return self._lines.get(timeout=wait_s)
        return None

    @property
    def ended(self) -> bool:
        """Whether it has ended and all its lines were taken."""
        return self._process.poll() is not None and not self._readers[0].is_alive() and self._lines.empty()

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal), or None."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """The end of what it printed on standard error."""
        return bytes(self._log).decode("utf-8", "replace")

    def end(self) -> None:
        """End it and wait until it is gone."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join(GRACE_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _read_lines(self) -> None:
        pipe = self._process.stdout
        while pipe is not None and (line := pipe.readline(_LINE_BYTES)):
            with suppress(queue.Full):  # progress that nobody takes is lost, the child goes on
                self._lines.put_nowait(line)

    def _read_log(self) -> None:
        pipe = self._process.stderr
        while pipe is not None and (block := os.read(pipe.fileno(), _BLOCK)):
            self._log += block
            del self._log[:-_LOG_BYTES]
