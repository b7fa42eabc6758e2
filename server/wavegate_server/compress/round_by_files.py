"""The device round of a compression job on the server, seen from the job's own process, which has neither database nor network.

It asks by a file in its directory and waits for another:

    request.json   the job writes: id, class, bundles
    answer.json    the server (`services/bench/job_requests`), when the round has ended: its figures, or why there is none

Each is written in one piece, so neither side reads half of it.
"""

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavegate_server.adapters.files.durable import write_durable
from wavegate_server.compress.search.device_round import DeviceFigures, Tell, read_round
from wavegate_shared.errors import UsageError

__all__ = ["ANSWER", "REQUEST", "RoundByFiles", "read_file"]

REQUEST, ANSWER = "request.json", "answer.json"
_POLL_S = 0.5


class RoundByFiles:
    """The job's side: see `DeviceRound`."""

    def __init__(self, directory: Path, hardware_class: str, *, timeout_s: float = 300.0, wait_s: float = 60.0) -> None:
        self._directory, self._class = directory, hardware_class
        self._timeout_s, self._wait_s = timeout_s, wait_s

    def measure(self, original: Path, candidates: Mapping[str, Path], tell: Tell) -> DeviceFigures:
        """Ask, and wait for the answer. Raises UsageError: why there is none."""
        self._directory.mkdir(parents=True, exist_ok=True)
        asked = uuid.uuid4().hex
        paths = {name: str(path) for name, path in candidates.items()}
        wanted = {"id": asked, "class": self._class, "original": str(original), "candidates": paths}
        times = {"timeout_s": self._timeout_s, "wait_s": self._wait_s}
        write_durable(self._directory / REQUEST, json.dumps({**wanted, **times}).encode())
        tell(f"waiting for a bench device of class {self._class}", "")
        ends = time.monotonic() + self._wait_s + self._timeout_s * (len(candidates) + 1)
        while time.monotonic() < ends:
            answer = read_file(self._directory / ANSWER)
            if answer.get("request") == asked:
                if "round" in answer:
                    return read_round(answer["round"])
                raise UsageError("conflict", str(answer.get("problem")))
            time.sleep(_POLL_S)
        raise UsageError("conflict", "the device round did not end in time")


def read_file(path: Path) -> dict[str, Any]:
    """What one side wrote for the other; nothing while it is not there."""
    try:
        answer = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}
