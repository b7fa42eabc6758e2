"""Bench rounds for compression jobs of this server, whose processes ask by files: see `compress/round_by_files`.

`round.json` beside the request says which round it became, so a server that was killed finds what it was at.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.files.durable import write_durable
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store.bench_rounds import cancel_round, round_document
from wavegate_server.compress.round_by_files import ANSWER, REQUEST, read_file
from wavegate_server.services.bench.intake import RoundSettings, start_round
from wavegate_shared.errors import WavegateError

__all__ = ["JobRequests"]

_ROUND = "round.json"
_KEYS = ("id", "state", "reason", "device", "class")
_OF_CANDIDATE = ("name", "state", "code", "detail", "bench", "golden")


class JobRequests:
    """The server's side."""

    def __init__(self, database: Engine, objects: Objects, *, now: Callable[[], datetime]) -> None:
        self._database, self._objects, self._now = database, objects, now

    def look(self, directory: Path, actor: str) -> None:
        """Start what was asked for, answer what has ended; called again and again while the job runs."""
        wanted, known = read_file(directory / REQUEST), read_file(directory / _ROUND)
        asked = wanted.get("id")
        if asked is None or read_file(directory / ANSWER).get("request") == asked:
            return
        if known.get("request") != asked:
            self.end(directory, actor)
            self._start(directory, wanted, actor)
            return
        with read(self._database) as session:
            found = round_document(session, str(known["round"]))
        if found["finished_at"] is not None:
            rows = [{key: each[key] for key in _OF_CANDIDATE} for each in found["candidates"]]
            told = {**{key: found[key] for key in _KEYS}, "candidates": rows}
            _write(directory / ANSWER, {"request": asked, "round": told})

    def end(self, directory: Path, actor: str) -> None:
        """Cancel the round of a job that ended, or asks anew."""
        known = read_file(directory / _ROUND)
        if "round" in known:
            with write(self._database) as session:
                cancel_round(session, str(known["round"]), actor=actor, now=self._now())

    def _start(self, directory: Path, wanted: Mapping[str, Any], actor: str) -> None:
        settings = RoundSettings(str(wanted["class"]), float(wanted["timeout_s"]), float(wanted["wait_s"]))
        candidates = {str(name): Path(path) for name, path in wanted["candidates"].items()}
        original = Path(wanted["original"])
        try:
            made = start_round(
                self._database, self._objects, original, candidates, settings, actor=actor, now=self._now()
            )
        except WavegateError as error:
            _write(directory / ANSWER, {"request": wanted["id"], "problem": error.detail})
            return
        _write(directory / _ROUND, {"request": wanted["id"], "round": made})


def _write(path: Path, document: Mapping[str, Any]) -> None:
    write_durable(path, json.dumps(document).encode())
