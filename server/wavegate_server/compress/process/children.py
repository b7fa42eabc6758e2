"""Subprocesses of a compression job: one JSON job in, one JSON answer out, with memory and time limits and captured logs.

A model is a program, and so is a quantiser run on one: it may crash, hang, print a flood or eat memory. Here that ends a
child, never the job.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from wavegate_server.adapters.with_parent import end_with_parent
from wavegate_shared.errors import CODES, UsageError

__all__ = ["MEMORY_LIMIT_BYTES", "TIMEOUT_S", "run_child"]

TIMEOUT_S = 300.0
MEMORY_LIMIT_BYTES = 4 << 30
_LOG_LIMIT_BYTES = 8 << 20
_FLOOD_BYTES = 256 << 20
_FILE_LIMIT_BYTES = 16 << 30
_DETAIL = 300
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LISTEN_S = 1.0
_TELL_BYTES = 1 << 20


def run_child(
    module: str,
    job: dict[str, Any],
    *,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_LIMIT_BYTES,
    threads: int = 1,
    listen: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run `python -m module` with `job` on its standard input; gives its answer, the last line it printed.

    The child is ended when this process is interrupted or `listen` raises, and by the kernel when this process is killed.

    Args:
        module: what to run.
        job: JSON types only.
        timeout_s: time limit.
        memory_bytes: limit of its address space.
        threads: what its numeric libraries may use.
        listen: told each {"progress": {..}} line soon after the child printed it.

    Raises:
        UsageError: `bundle_invalid`: it failed, crashed, hung, flooded its log or ran out of memory; the detail says which.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads)), "OMP_WAIT_POLICY": "passive"},
            preexec_fn=lambda: _limit(memory_bytes),
            start_new_session=True,
        )
        try:
            _wait(child, json.dumps(job).encode(), max(timeout_s, 0.1), (out, log), listen)
        finally:
            _end(child)
        return _answer(out, log, child.returncode, memory_bytes)


def _wait(
    child: subprocess.Popen[bytes],
    job: bytes,
    timeout_s: float,
    files: tuple[Any, Any],
    listen: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Wait for its end, and look every second whether it is late, floods its output or log, or tells progress."""
    ends, told = time.monotonic() + timeout_s, 0
    given: bytes | None = job
    while True:
        left = ends - time.monotonic()
        try:
            child.communicate(given, timeout=max(0.0, min(left, _LISTEN_S)))
        except subprocess.TimeoutExpired as error:
            if left <= 0:
                raise UsageError("bundle_invalid", f"it did not finish within {timeout_s:.0f} s") from error
            if any(os.fstat(file.fileno()).st_size > _FLOOD_BYTES for file in files):
                raise UsageError("bundle_invalid", f"it flooded its log (over {_FLOOD_BYTES >> 20} MB)") from error
            if listen:
                told = _tell(files[0], told, listen)
            given = None  # it goes on with what is left of the first call
            continue
        if listen:
            _tell(files[0], told, listen)
        return


def _tell(out: Any, told: int, listen: Callable[[dict[str, Any]], None]) -> int:
    """Pass on whole progress lines behind `told`; read beside the file's own place, which the child writes at."""
    text = os.pread(out.fileno(), _TELL_BYTES, told)
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.splitlines():
        if line.startswith(b'{"progress":'):
            listen(json.loads(line)["progress"])
    return told + len(whole)


def _limit(memory_bytes: int) -> None:
    end_with_parent(signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT_BYTES, _FILE_LIMIT_BYTES))


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdin:
        child.stdin.close()


def _answer(out: Any, log: Any, status: int, memory_bytes: int) -> dict[str, Any]:
    lines = _tail(out).splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        answer = {}
    if not answer or "progress" in answer:  # a child that was killed while it told how far it is
        raise UsageError("bundle_invalid", _how_it_ended(status, _tail(log), memory_bytes))
    if "error" in answer:
        code = str(answer["error"])
        known = code in CODES and CODES[code].kind == "UsageError"
        raise UsageError(code if known else "bundle_invalid", str(answer["detail"]))
    return answer


def _how_it_ended(status: int, log: str, memory_bytes: int) -> str:
    last = (log.strip().splitlines() or ["no output"])[-1][:_DETAIL]
    if "MemoryError" in log or "bad_alloc" in log:
        return f"it ran out of memory (limit {memory_bytes >> 30} GiB)"
    if status < 0:
        return f"it crashed ({signal.Signals(-status).name}): {last}"
    return f"it failed: {last}"


def _tail(file: Any) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LOG_LIMIT_BYTES))
    return bytes(file.read()).decode("utf-8", "replace")
