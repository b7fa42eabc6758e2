"""The subprocess that prunes and distils: `python -m wavegate_server.compress.distil.program`, fenced in before it loads anything.

Jobs (each with "directory", "source", "pre", "train", "inputs": names of the graph's inputs in order, "threads"):
    {"kind": "propose", "texts": [npz, ..]} -> {"structures": [..], "tokens", "samples", "fence"}
    {"kind": "teacher", "target": npy} -> {"samples", "seconds"}; writes the teacher's answers on the train set
    {"kind": "student", ...} -> {"stopped", "steps", "loss", "drop", ..}; see `student.make`
While it trains it prints lines {"progress": {..}}; the last line is the answer. Failures: {"error", "detail"}, exit code 1.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

from wavegate_server.compress.process import sandbox
from wavegate_shared.errors import UsageError

__all__ = ["main"]


def main() -> int:
    """Read a job from standard input, print progress and the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    out = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = _run(job, lambda event: _print(out, {"progress": event}))
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    except ModuleNotFoundError as error:
        answer = {
            "error": "failed",
            "detail": f"{error.name} is not installed: pip install 'wavegate-server[distil]'",
        }
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        answer = {"error": "failed", "detail": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    _print(out, answer)
    return 1 if "error" in answer else 0


def _run(job: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    fence = sandbox.enter()
    from wavegate_server.compress.distil import student  # torch, and with it threads, only inside the fence

    kinds = {"propose": student.propose, "teacher": student.teach, "student": student.make}
    return {**kinds[job["kind"]](job, say), "fence": str(fence)}


def _print(out: Any, line: dict[str, Any]) -> None:
    out.write("\n" + json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
