"""Runs compression jobs for the server: one at a time, each in a child process, with nothing decided in memory.

A job's directory below `<data>/compress/jobs/<id>` holds its bundle, its result bundle and its result file; finished steps lie
in `<data>/compress/cache`. A server that stops puts its job back into the queue; one that is killed takes it up again when it
is back. Either way the steps that were finished are not repeated. The registry changes once, at the end, in one transaction
with the job's own row.
"""

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session

from wavegate_server.adapters import clock
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import CompressJob
from wavegate_server.adapters.files import bundle_store
from wavegate_server.adapters.files.durable import make_directory, write_durable
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store import compress_jobs
from wavegate_server.adapters.store.compress_jobs import JobState, Outcome, Step
from wavegate_server.adapters.store.models import get_version
from wavegate_server.compress.process.job_child import Child, Work
from wavegate_server.core.sentences import Sentence
from wavegate_server.services import registry
from wavegate_server.services.bench.job_requests import JobRequests
from wavegate_shared.errors import UsageError, WavegateError

__all__ = ["CompressRunner"]

_LOG = logging.getLogger(__name__)
_MODULE = "wavegate_server.compress.job_program"
_POLL_S = 1.0
_RENEW_S = 1.0
"""How soon a cancel is seen; the lease is thirty times as long."""
_BUMP_S = 2.0
_SLACK_S = 600.0
"""Time beyond its own that a job may take to judge what it found and to write it."""
_KEPT_LOG = 4_000


class CompressRunner:
    """Takes jobs from the queue. `start` does so until `stop`; `run_next` runs one in this thread."""

    def __init__(
        self,
        database: Engine,
        objects: Objects,
        directory: Path,
        *,
        now: Callable[[], datetime] = clock.now,
        module: str = _MODULE,
        slack_s: float = _SLACK_S,
    ) -> None:
        """`directory` is made; `module` is what a child runs."""
        self.errors = 0
        self._database, self._objects, self._now, self._module = database, objects, now, module
        self._jobs, self._cache = directory / "jobs", directory / "cache"
        self._slack_s = slack_s
        self._box = JobRequests(database, objects, now=now)
        for place in (self._jobs, self._cache):
            make_directory(place, mode=0o700)
        self._worker = _worker_name(directory / "worker")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take jobs in a thread of its own."""
        self._thread = threading.Thread(target=self._loop, name="compress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; a running job's process ends and the job goes back into the queue. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def run_next(self) -> bool:
        """Run the next job to its end; False when there is none."""
        with write(self._database) as session:
            job = compress_jobs.claim(session, self._worker, self._now())
        if job is None or job.id is None:
            return False
        if job.state == JobState.RUNNING:
            _LOG.info(
                "compress.start job=%d model=%s version=%d attempt=%d", job.id, job.model, job.version, job.attempt
            )
            self._run(job, job.id)
        return True

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                ran = self.run_next()
            except Exception:  # the tick boundary: the job is still in the table, and is taken up again
                ran = False
                self.errors += 1
                _LOG.exception("compress.failed errors=%d", self.errors)
            if not ran:
                self._stop.wait(_POLL_S)

    def _run(self, job: CompressJob, job_id: int) -> None:
        place = self._jobs / str(job_id)
        try:
            outcome = self._outcome(job, job_id, place)
            if outcome is None:  # back in the queue: its files stay
                return
            self._finish(job, job_id, place, outcome)
        except WavegateError as error:
            self._close(job_id, Outcome(JobState.FAILED, error.detail, error.code))
        shutil.rmtree(place, ignore_errors=True)

    def _outcome(self, job: CompressJob, job_id: int, place: Path) -> Outcome | None:
        """How the job ended; None when it is back in the queue. A result that is there already needs no child."""
        found, scratch, log = place / "result.json", place / "tmp", ""
        if not found.is_file():
            self._prepare(job, place, scratch)
            child = Child(self._module, msgspec.json.encode(self._work(job, place)), scratch=scratch)
            try:
                why = self._watch(child, job, job_id)
            finally:
                child.end()
                self._box.end(place / "round", f"compress job {job_id}")
                shutil.rmtree(scratch, ignore_errors=True)
            log = child.log[-_KEPT_LOG:]
            if why or not found.is_file():
                return self._without_result(job, job_id, why, child.status, log)
        return _read(found, log)

    def _without_result(self, job: CompressJob, job_id: int, why: str, status: int | None, log: str) -> Outcome | None:
        if why == "stop":
            with write(self._database) as session:
                compress_jobs.release(session, job_id, self._worker)
            return None
        if why == "cancel":
            return Outcome(JobState.CANCELLED, Sentence("job.cancelled"), log=log)
        if why == "late":
            overdue = Sentence("job.overdue", seconds=f"{job.time_s:.0f}")
            return Outcome(JobState.FAILED, overdue, "internal", log=log)
        ended = _how_it_ended(status, log)
        if status is not None and status < 0:  # killed or crashed: not by the job's own decision
            with write(self._database) as session:
                if compress_jobs.again(session, job_id, self._worker, ended):
                    _LOG.warning("compress.again job=%d why=%s", job_id, ended)
                    return None
        return Outcome(JobState.FAILED, ended, "internal", log=log)

    def _prepare(self, job: CompressJob, place: Path, scratch: Path) -> None:
        for leftover in (scratch, place / "out"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch.mkdir(parents=True)
        if not (place / "bundle" / "bundle.yaml").is_file():
            with read(self._database) as session:
                info = get_version(session, job.model, job.version).info
            bundle_store.restore(self._objects, info, place / "bundle")

    def _work(self, job: CompressJob, place: Path) -> Work:
        return Work(
            parent=os.getpid(),
            bundle=str(place / "bundle"),
            budget=job.budget,
            out=str(place / "out"),
            result=str(place / "result.json"),
            cache=str(self._cache),
            time_s=job.time_s,
            used_s=job.used_s,
            device_class=job.device_class,
        )

    def _watch(self, child: Child, job: CompressJob, job_id: int) -> str:
        """Pass progress on until the child ends: "" then, else why it has to be ended: stop, cancel, late."""
        began, renewed, bumped, untold = time.monotonic(), 0.0, 0.0, False
        while not child.ended:
            if self._stop.is_set():
                return "stop"
            line = child.line(0.25)
            at = time.monotonic()
            if line is not None and (step := _step(line)) is not None:
                told = at - bumped >= _BUMP_S
                bumped, untold = (at, False) if told else (bumped, True)
                with write(self._database) as session:
                    compress_jobs.note(session, job_id, step, now=self._now(), bump=told)
            if at - renewed >= _RENEW_S:
                renewed = at
                self._box.look(self._jobs / str(job_id) / "round", f"compress job {job_id}")
                told = untold and at - bumped >= _BUMP_S
                bumped, untold = (at, False) if told else (bumped, untold)
                with write(self._database) as session:
                    used = job.used_s + at - began
                    wanted = compress_jobs.renew(session, job_id, self._worker, used_s=used, now=self._now(), bump=told)
                if not wanted:
                    return "cancel"
            if at - began > job.time_s + self._slack_s:
                return "late"
        return ""

    def _finish(self, job: CompressJob, job_id: int, place: Path, outcome: Outcome) -> None:
        """Import what came out and close the job in the same transaction: twice is not possible, nor half of it."""
        out = place / "out"
        if outcome.state is not JobState.MET or not (out / "bundle.yaml").is_file():
            self._close(job_id, outcome)
            return

        def registered(session: Session, ref: registry.VersionRef) -> None:
            compress_jobs.finish(session, job_id, replace(outcome, version=ref.number), self._now())

        try:
            ref = registry.import_bundle(
                self._database,
                self._objects,
                out,
                unchecked=False,
                actor=job.created_by,
                now=self._now(),
                parent=job.version,
                registered=registered,
            )
        except UsageError as error:
            reason = Sentence("job.not_registered", detail=error.detail)
            self._close(job_id, Outcome(JobState.FAILED, reason, error.code, outcome.result, log=outcome.log))
            return
        _LOG.info("compress.met job=%d model=%s version=%d", job_id, ref.model, ref.number)

    def _close(self, job_id: int, outcome: Outcome) -> None:
        with write(self._database) as session:
            compress_jobs.finish(session, job_id, outcome, self._now())
        _LOG.info("compress.%s job=%d why=%s", outcome.state, job_id, outcome.reason)


def _worker_name(path: Path) -> str:
    """This installation's name as a worker: kept, so that a server that comes back knows its own jobs."""
    if not path.is_file():
        write_durable(path, uuid.uuid4().hex.encode())
    return path.read_text(encoding="ascii")


def _step(line: bytes) -> Step | None:
    try:
        return msgspec.json.decode(line, type=Step)
    except msgspec.MsgspecError:
        return None  # something printed by a library


def _read(path: Path, log: str) -> Outcome:
    answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "error" in answer:
        return Outcome(JobState.FAILED, str(answer["error"]["detail"]), str(answer["error"]["code"]), log=log)
    result = {name: value for name, value in answer["result"].items() if name != "out"}
    if result["chosen"] is None:
        return Outcome(
            JobState.NOT_MET,
            Sentence("job.not_met"),
            result=result,
            log=log,
        )
    return Outcome(JobState.MET, "" if answer["result"]["out"] else Sentence("job.original"), result=result, log=log)


def _how_it_ended(status: int | None, log: str) -> Sentence:
    lines = log.strip().splitlines()
    last = lines[-1][:300] if lines else Sentence("job.empty_log")
    if status is not None and status < 0:
        return Sentence("job.ended_signal", number=-status, line=last)
    return Sentence("job.ended_status", number=str(status), line=last)
