"""`python -m wavegate_server.compress.job_program`: one compression job in a process of its own, for the server.

In: one JSON line (`Work`). Out: one JSON line for each step, and at the end the result file, written in one piece: it is there
or it is not. It holds `{"result": ...}`, or `{"error": {"code", "detail"}}` for what the operator can mend. It needs neither
database nor network. SIGTERM ends it with its children; when the server dies the kernel sends it.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.adapters.files.durable import write_durable
from wavegate_server.adapters.with_parent import end_with_parent
from wavegate_server.compress.job import Event, Options, run_job
from wavegate_server.compress.process.job_child import Work
from wavegate_server.compress.round_by_files import RoundByFiles
from wavegate_server.compress.search.report import as_json
from wavegate_server.config import Settings
from wavegate_server.core.compress.budget import parse_budget
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = ["main"]

_MEMORY_BYTES = 6 << 30
_NICE = 5
"""The server's own work goes first."""
_STOPPED = 143
_NOT_RUN = Sentence("note.structure_not_run")


def main() -> None:
    """Run the job on standard input."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    work = msgspec.json.decode(sys.stdin.buffer.readline(), type=Work)
    _limit(work.parent)
    try:
        answer: dict[str, Any] = {"result": _run(work)}
    except UsageError as error:
        answer = {"error": {"code": error.code, "detail": str(error.detail)}}
    write_durable(Path(work.result), json.dumps(answer).encode())


def _run(work: Work) -> dict[str, Any]:
    left = max(work.time_s - work.used_s, work.time_s / 3)  # steps of an earlier attempt cost nothing now
    there = RoundByFiles(Path(work.result).parent / "round", work.device_class) if work.device_class else None
    allowed = Settings().run_source
    options = Options(left, Path(work.cache), work.device_class, device_round=there, structural=allowed)
    with open_bundle(Path(work.bundle)) as bundle:
        items = parse_budget(work.budget, bundle.spec.metric)
        result = run_job(bundle, items, Path(work.out), _teller(work), options)
        if bundle.spec.source is not None and not allowed:
            result = replace(result, notes=[*result.notes, _NOT_RUN])
    written = Path(work.out) if result.chosen and result.chosen.path else None
    return as_json(result, written)


def _teller(work: Work) -> Callable[[Event], None]:
    began = time.monotonic()

    def tell(event: Event) -> None:
        share = min((work.used_s + time.monotonic() - began) / work.time_s, 1.0)
        print(json.dumps({**asdict(event), "share": round(share, 4)}), flush=True)

    return tell


def _limit(parent: int) -> None:
    """Lower priority, bounded memory, no core files; and an end when the server ends, however it does."""
    os.nice(_NICE)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))  # soft only: its children set their own
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end_with_parent()
    if os.getppid() != parent:  # it died before the signal was asked for
        sys.exit(_STOPPED)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(_STOPPED)


if __name__ == "__main__":
    main()
