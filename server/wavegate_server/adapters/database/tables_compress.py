"""The tables of compression jobs (SQLModel). Not here: what may happen to a job (`compress_jobs`)."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from wavegate_server.adapters.database.columns import json_column, time_column

__all__ = ["CompressEvent", "CompressJob"]


class CompressJob(SQLModel, table=True):
    """One compression of one version. `worker` runs it while it is `running`, and must renew `lease_until`."""

    __tablename__ = "compress_job"
    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(index=True)
    version: int
    budget: str
    device_class: str = ""
    time_s: float
    state: str = Field(index=True)  # queued | running | met | not_met | failed | cancelled
    code: str | None = None  # of a failure
    reason: str = ""  # one plain sentence: why it is in this state
    said: dict[str, Any] = (
        json_column()
    )  # the same as a code with parameters (core.sentences); empty: a text without one
    created_at: datetime = time_column()
    created_by: str = ""
    started_at: datetime | None = time_column(nullable=True)
    finished_at: datetime | None = time_column(nullable=True)
    cancel_asked: bool = False
    worker: str = ""
    lease_until: datetime | None = time_column(nullable=True)
    attempt: int = 0
    used_s: float = 0.0  # time its processes ran, all attempts together
    progress: dict[str, Any] = json_column()  # the newest event
    result: dict[str, Any] = json_column()  # verdicts, candidates, comparison, ...; empty until it is there
    result_version: int | None = None
    log: str = ""  # the end of what its process printed
    revision: int = 1


class CompressEvent(SQLModel, table=True):
    """One step of a job. Append-only."""

    __tablename__ = "compress_event"
    id: int | None = Field(default=None, primary_key=True)
    job_id: int = Field(index=True)
    at: datetime = time_column()
    stage: str
    candidate: str = ""
    best: str = ""
    share: float = 0.0  # of the job's time
