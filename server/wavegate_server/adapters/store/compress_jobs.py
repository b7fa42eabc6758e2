"""Compression jobs in the database: made, listed, taken by a worker, told of progress, cancelled, finished.

    queued -> running -> met | not_met | failed | cancelled        (queued -> cancelled at once; running -> queued
                                                                     on shutdown, or after a crash)

A worker holds a running job by a lease it renews; a job whose worker died goes to whoever finds the lease over, or to the
same worker as soon as it is back, and goes on from its cached steps. Not here: running it (`compress_runner`).
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, or_
from sqlmodel import Session, col, func, select

from wavegate_server.adapters.database.tables import CompressEvent, CompressJob
from wavegate_server.adapters.files.bundle_store import is_kept
from wavegate_server.adapters.reads.page import MAX_LIMIT, Page, cursor_number, cursor_text
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.models import get_version
from wavegate_server.core.compress.budget import parse_budget
from wavegate_server.core.sentences import Sentence, said_of
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import decode_manifest

__all__ = [
    "FINISHED",
    "LEASE",
    "MAX_ATTEMPTS",
    "TIME_LIMITS_S",
    "JobState",
    "Outcome",
    "Step",
    "again",
    "ask_cancel",
    "check_time",
    "claim",
    "create_job",
    "event_page",
    "finish",
    "get_job",
    "job_page",
    "note",
    "record",
    "release",
    "renew",
]

LEASE = timedelta(seconds=30)
MAX_ATTEMPTS = 3
"""A job whose process crashed so often, or took its server with it, is given up."""
TIME_LIMITS_S = (10.0, 86_400.0)
_MAX_EVENTS = 2_000


class JobState(StrEnum):
    """The state of a compression job."""

    QUEUED = "queued"
    RUNNING = "running"
    MET = "met"
    NOT_MET = "not_met"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({JobState.MET, JobState.NOT_MET, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Step:
    """One progress event. `detail`: how far a long step is; `share`: of the job's time, 0 to 1."""

    stage: str
    candidate: str = ""
    best: str = ""
    detail: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `result` is empty where there is none; `version` is the new version's number.

    `reason` is a `Sentence` where this server says it, and a text of the job's own process otherwise.
    """

    state: JobState
    reason: str = ""
    code: str | None = None
    result: dict[str, Any] | None = None
    version: int | None = None
    log: str = ""


def check_time(time_s: float) -> None:
    """Raise UsageError `invalid` for a job's time out of range."""
    if not TIME_LIMITS_S[0] <= time_s <= TIME_LIMITS_S[1]:
        raise UsageError(
            "invalid", Sentence("refused.time", least=f"{TIME_LIMITS_S[0]:.0f}", most=f"{TIME_LIMITS_S[1]:.0f}")
        )


def create_job(
    session: Session,
    *,
    model: str,
    version: int,
    budget: str,
    device_class: str,
    time_s: float,
    actor: str,
    now: datetime,
) -> CompressJob:
    """A queued job for a version.

    Raises:
        UsageError: `not_found`, `conflict` (its bundle was not kept), `invalid` (a budget that is none, a time out of range).
    """
    row = get_version(session, model, version)
    if not is_kept(row.info):
        raise UsageError("conflict", Sentence("refused.not_kept", model=model, version=version))
    parse_budget(budget, decode_manifest(row.manifest).metric)
    check_time(time_s)
    job = CompressJob(
        model=model,
        version=version,
        budget=budget,
        device_class=device_class,
        time_s=time_s,
        state=JobState.QUEUED.value,
        created_at=now,
        created_by=actor,
    )
    session.add(job)
    session.flush()
    _audit(session, job, "compress.create", actor, now, {"version": version, "budget": budget})
    return job


def record(
    session: Session,
    *,
    model: str,
    version: int,
    budget: str,
    device_class: str,
    time_s: float,
    used_s: float,
    result: dict[str, Any],
    result_version: int | None,
    actor: str,
    now: datetime,
) -> CompressJob:
    """A job that ran elsewhere, already ended.

    Raises:
        UsageError: `not_found` (a version that is not there), `invalid` (a budget that is none).
    """
    row = get_version(session, model, version)
    if result_version is not None:
        get_version(session, model, result_version)
    parse_budget(budget, decode_manifest(row.manifest).metric)
    met = result.get("chosen") is not None
    job = CompressJob(
        model=model,
        version=version,
        budget=budget,
        device_class=device_class,
        time_s=time_s,
        used_s=used_s,
        state=(JobState.MET if met else JobState.NOT_MET).value,
        created_at=now,
        started_at=now,
        finished_at=now,
        created_by=actor,
        result=result,
        result_version=result_version,
    )
    _because(job, Sentence("job.elsewhere"))
    session.add(job)
    session.flush()
    detail = {"version": version, "budget": budget, "state": job.state, "result_version": result_version}
    _audit(session, job, "compress.record", actor, now, detail)
    return job


def get_job(session: Session, job_id: int) -> CompressJob:
    """The job. Raises UsageError `not_found`."""
    job = session.get(CompressJob, job_id)
    if job is None:
        raise UsageError("not_found", Sentence("missing.job", number=job_id))
    return job


def job_page(
    session: Session,
    *,
    model: str | None = None,
    state: JobState | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[CompressJob]:
    """Jobs, newest first. Raises UsageError `invalid` for a cursor that is not ours."""
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(CompressJob).order_by(col(CompressJob.id).desc()).limit(limit + 1)
    if model is not None:
        query = query.where(CompressJob.model == model)
    if state is not None:
        query = query.where(CompressJob.state == state.value)
    if cursor is not None:
        query = query.where(col(CompressJob.id) < cursor_number(cursor))
    found = session.exec(query).all()
    items = tuple(found[:limit])
    return Page(items, cursor_text(items[-1].id or 0) if len(found) > limit else None)


def event_page(
    session: Session, job_id: int, *, after: int = 0, cursor: str | None = None, limit: int = 50
) -> Page[CompressEvent]:
    """A job's events with an id above `after`, in their order. Raises UsageError `not_found`, `invalid`."""
    get_job(session, job_id)
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(CompressEvent).where(CompressEvent.job_id == job_id, col(CompressEvent.id) > after)
    query = query.order_by(col(CompressEvent.id))
    if cursor is not None:
        query = query.where(col(CompressEvent.id) > cursor_number(cursor))
    found = session.exec(query.limit(limit + 1)).all()
    items = tuple(found[:limit])
    return Page(items, cursor_text(items[-1].id or 0) if len(found) > limit else None)


def ask_cancel(session: Session, job_id: int, *, actor: str, now: datetime) -> bool:
    """End a job: a queued one at once, a running one as soon as its worker sees it. Gives whether this changed anything.

    Raises:
        UsageError: `not_found`; `conflict` for a job that ended otherwise.
    """
    job = get_job(session, job_id)
    if job.state == JobState.CANCELLED or job.cancel_asked:
        return False
    if job.state in FINISHED:
        raise UsageError("conflict", Sentence("refused.job_ended", number=job_id, job_state=job.state))
    _audit(session, job, "compress.cancel", actor, now, {})
    if job.state == JobState.QUEUED:
        _close(job, Outcome(JobState.CANCELLED, Sentence("job.cancelled_before", name=actor)), now)
    else:
        job.cancel_asked = True
        _because(job, Sentence("job.cancel_asked", name=actor))
    job.revision += 1
    session.add(job)
    return True


def claim(session: Session, worker: str, now: datetime) -> CompressJob | None:
    """The job this worker has to run now: one whose worker died, else the oldest in the queue."""
    lost = and_(
        col(CompressJob.state) == JobState.RUNNING.value,
        or_(col(CompressJob.worker) == worker, col(CompressJob.lease_until) < now),
    )
    query = select(CompressJob).where(or_(lost, col(CompressJob.state) == JobState.QUEUED.value))
    rank = col(CompressJob.state).desc()  # running before queued
    job = session.exec(query.order_by(rank, col(CompressJob.id)).limit(1).with_for_update(skip_locked=True)).first()
    if job is None:
        return None
    job.state, job.worker, job.lease_until = JobState.RUNNING.value, worker, now + LEASE
    job.started_at = job.started_at or now
    job.attempt += 1
    _because(job, "" if job.attempt == 1 else Sentence("job.anew"))
    if job.attempt > MAX_ATTEMPTS:
        _close(
            job,
            Outcome(JobState.FAILED, Sentence("job.given_up", times=MAX_ATTEMPTS), "internal"),
            now,
        )
    _changed(session, job)
    return job


def renew(session: Session, job_id: int, worker: str, *, used_s: float, now: datetime, bump: bool) -> bool:
    """Keep the job; gives whether it is still this worker's and wanted (False: end it)."""
    job = get_job(session, job_id)
    if job.worker != worker or job.state != JobState.RUNNING:
        return False
    job.lease_until, job.used_s = now + LEASE, used_s
    session.add(job)
    if bump:
        audit.bump_revision(session)
    return not job.cancel_asked


def note(session: Session, job_id: int, step: Step, *, now: datetime, bump: bool) -> None:
    """Store a progress event; one that only says more of the step before it becomes no row of its own.

    `bump` tells the pages; the caller throttles it.
    """
    job = get_job(session, job_id)
    share = round(step.share, 4)
    before, job.progress = job.progress, {**asdict(step), "share": share, "at": now.isoformat()}
    session.add(job)
    same = all(before.get(name) == job.progress[name] for name in ("stage", "candidate", "best"))
    count = session.exec(select(func.count()).where(CompressEvent.job_id == job_id)).one()
    if not same and count < _MAX_EVENTS:
        event = CompressEvent(
            job_id=job_id, at=now, stage=step.stage, candidate=step.candidate, best=step.best, share=share
        )
        session.add(event)
    if bump:
        audit.bump_revision(session)


def release(session: Session, job_id: int, worker: str) -> None:
    """Put a running job back into the queue: the server ends in an orderly way. It does not count as an attempt."""
    job = get_job(session, job_id)
    if job.worker == worker and job.state == JobState.RUNNING:
        job.state, job.worker, job.lease_until = JobState.QUEUED.value, "", None
        job.attempt -= 1
        _because(job, Sentence("job.waits"))
        _changed(session, job)


def again(session: Session, job_id: int, worker: str, why: str) -> bool:
    """Put a job whose process crashed back into the queue; False when it had its last attempt."""
    job = get_job(session, job_id)
    if job.worker != worker or job.attempt >= MAX_ATTEMPTS:
        return False
    job.state, job.worker, job.lease_until = JobState.QUEUED.value, "", None
    _because(job, Sentence("job.again", ended=why))
    _changed(session, job)
    return True


def finish(session: Session, job_id: int, outcome: Outcome, now: datetime) -> None:
    """Write how a job ended; one that ended before stays as it is."""
    job = get_job(session, job_id)
    if job.state in FINISHED:
        return
    _close(job, outcome, now)
    job.revision += 1
    session.add(job)
    detail = {"state": outcome.state.value, "version": outcome.version}
    _audit(session, job, "compress.finish", "compressor", now, detail)


def _close(job: CompressJob, outcome: Outcome, now: datetime) -> None:
    job.state, job.code = outcome.state.value, outcome.code
    _because(job, outcome.reason)
    job.finished_at, job.worker, job.lease_until = now, "", None
    job.result, job.result_version, job.log = outcome.result or {}, outcome.version, outcome.log


def _because(job: CompressJob, reason: str) -> None:
    """Write why the job is in its state: the text, and its code where it has one."""
    job.reason, job.said = str(reason), said_of(reason)


def _changed(session: Session, job: CompressJob) -> None:
    job.revision += 1
    session.add(job)
    audit.bump_revision(session)


def _audit(session: Session, job: CompressJob, action: str, actor: str, now: datetime, detail: dict[str, Any]) -> None:
    audit.append(session, actor=actor, action=action, subject=f"{job.model}/job/{job.id}", now=now, detail=detail)
