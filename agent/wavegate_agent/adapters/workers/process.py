"""One worker process as the agent sees it: start, call, end. Control side: no numpy, no onnxruntime."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from wavegate_agent.adapters.channel import pair
from wavegate_agent.core.worker_messages import Call, Done, Failed, Reply, Stats, decode_reply, encode
from wavegate_shared.errors import CODES, DeviceError
from wavegate_shared.manifest import Manifest

__all__ = ["WorkerProcess"]

_EXIT_S = 5.0
_Make = Callable[[int], Call]


class _Waiting:
    """A call without its answer yet."""

    __slots__ = ("event", "on_reply", "reply")

    def __init__(self, on_reply: Callable[[Reply | None], None] | None) -> None:
        self.event = threading.Event()
        self.on_reply = on_reply
        self.reply: Reply | None = None


class WorkerProcess:
    """A running worker. The host's thread calls `on_readable`; any thread may call it or wait for answers.

    Attributes:
        directory, manifest: the version it runs.
        gone: set when the process is known to be gone.
        ended: the same as a flag; `status` is then its exit status (negative: a signal).
        expected_end: its end was asked for.
        must_answer: it serves or stands by, so silence means that it hangs; a candidate may be starved by live traffic.
        asked_at: when it was asked for a sign of life it has not given yet.
    """

    def __init__(self, directory: Path, manifest: Manifest, *, nice: int, on_stats: Callable[[Stats], None]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.ended = False
        self.gone = threading.Event()
        self.status = 0
        self.expected_end = False
        self.must_answer = False
        self.asked_at: float | None = None
        self._on_stats = on_stats
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._lock = threading.Lock()
        self.channel, theirs = pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wavegate_agent.worker", str(theirs.fileno()), str(nice)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    @property
    def version(self) -> int:
        """The version it runs."""
        return self.manifest.version

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    # --- calls --------------------------------------------------------------------------------------------------------

    def post(
        self,
        make: _Make,
        descriptors: list[int] | None = None,
        on_reply: Callable[[Reply | None], None] | None = None,
    ) -> _Waiting:
        """Send a call and go on. `on_reply` runs on the host's thread, with None when the worker ends first."""
        number = next(self._numbers)
        waiting = _Waiting(on_reply)
        with self._lock:
            gone = self.ended
            if not gone:
                self._waiting[number] = waiting
        if gone:
            self._settle(waiting, None)
            return waiting
        try:
            self.channel.send(encode(make(number)), descriptors)
        except OSError:
            self.kill()  # it does not read its channel: the end of the process settles what waits
        return waiting

    def call(
        self,
        make: _Make,
        descriptors: list[int] | None = None,
        *,
        timeout_s: float,
        late: str = "load_failed",
        spare: bool = False,
    ) -> Done:
        """Send a call and wait for its answer.

        Raises:
            DeviceError: the worker's own code; `candidate_crashed` when it ended; `late` when no answer came in time (it
                is killed then, unless `spare`).
        """
        waiting = self.post(make, descriptors)
        if not waiting.event.wait(timeout_s):
            if not spare:
                self.expected_end = True
                self.kill()
            raise DeviceError(late, f"version {self.version} did not answer within {timeout_s:g} s")
        reply = waiting.reply
        if isinstance(reply, Done):
            return reply
        if isinstance(reply, Failed):
            known = reply.code in CODES and CODES[reply.code].kind == "DeviceError"
            raise DeviceError(reply.code if known else "load_failed", reply.detail)
        raise DeviceError("candidate_crashed", f"version {self.version} ended: {self.how_ended()}")

    def on_readable(self) -> bool:
        """Handle what the worker says; True when it is gone."""
        while True:
            packet = self.channel.receive()
            if packet is None:
                return False
            packet_data, end = packet.data, packet.end
            packet.close()
            if end:
                return True
            try:
                self._take(decode_reply(packet_data))
            except (msgspec.DecodeError, ValueError):
                self.kill()

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, Stats):
            self.asked_at = None
            self._on_stats(reply)
        with self._lock:
            waiting = self._waiting.pop(reply.call, None)
        if waiting is not None:
            self._settle(waiting, reply)

    def _settle(self, waiting: _Waiting, reply: Reply | None) -> None:
        waiting.reply = reply
        waiting.event.set()
        if waiting.on_reply is not None:
            waiting.on_reply(reply)

    # --- the end ------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End it at once; `on_readable` notices."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def bury(self) -> None:
        """After the end of the channel: wait for the process, settle what waits. For the thread that watches."""
        try:
            self.status = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.status = self._process.wait()
        self.channel.close()
        with self._lock:
            self.ended = True
            waiting, self._waiting = list(self._waiting.values()), {}
        self.gone.set()
        for one in waiting:
            self._settle(one, None)

    @property
    def signal(self) -> int | None:
        """The signal that ended it, None when it exited or still runs."""
        return -self.status if self.ended and self.status < 0 else None

    def how_ended(self) -> str:
        """Exit status or signal, in words."""
        if self.signal is None:
            return f"exit status {self.status}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(self.signal).name}"
        return f"signal {self.signal}"
