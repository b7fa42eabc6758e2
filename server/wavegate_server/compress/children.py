"""Subprocesses of a compression job: one JSON job in, one JSON answer out, with memory and time limits and captured logs.

A model is a program, and so is a quantiser run on one: it may crash, hang, print a flood or eat memory. Here that ends a
child, never the job.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from typing import Any

from wavegate_shared.errors import UsageError

__all__ = ["MEMORY_LIMIT_BYTES", "TIMEOUT_S", "run_child"]

TIMEOUT_S = 300.0
MEMORY_LIMIT_BYTES = 4 << 30
_LOG_LIMIT_BYTES = 8 << 20
_FILE_LIMIT_BYTES = 16 << 30
_DETAIL = 300
_PR_SET_PDEATHSIG = 1


def run_child(
    module: str, job: dict[str, Any], *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_LIMIT_BYTES
) -> dict[str, Any]:
    """Run `python -m module` with `job` on its standard input; gives its answer, the last line it printed.

    The child is ended when this process is interrupted, and by the kernel when this process is killed.

    Raises:
        UsageError: `bundle_invalid`: it failed, crashed, hung, flooded its log or ran out of memory; the detail says which.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            preexec_fn=lambda: _limit(memory_bytes),
            start_new_session=True,
        )
        try:
            child.communicate(json.dumps(job).encode(), timeout=max(timeout_s, 0.1))
        except subprocess.TimeoutExpired as error:
            raise UsageError("bundle_invalid", f"it did not finish within {timeout_s:.0f} s") from error
        finally:
            _end(child)
        return _answer(out, log, child.returncode)


def _limit(memory_bytes: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT_BYTES, _FILE_LIMIT_BYTES))


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdin:
        child.stdin.close()


def _answer(out: Any, log: Any, status: int) -> dict[str, Any]:
    lines = _tail(out).splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        answer = {}
    if not answer:
        raise UsageError("bundle_invalid", _how_it_ended(status, _tail(log)))
    if "error" in answer:
        raise UsageError("bundle_invalid", str(answer["detail"]))
    return answer


def _how_it_ended(status: int, log: str) -> str:
    last = (log.strip().splitlines() or ["no output"])[-1][:_DETAIL]
    if "MemoryError" in log or "bad_alloc" in log:
        return f"it ran out of memory (limit {MEMORY_LIMIT_BYTES >> 30} GiB)"
    if status < 0:
        return f"it crashed ({signal.Signals(-status).name}): {last}"
    return f"it failed: {last}"


def _tail(file: Any) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LOG_LIMIT_BYTES))
    return bytes(file.read()).decode("utf-8", "replace")
