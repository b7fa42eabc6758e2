"""The tables of bench rounds (SQLModel). Not here: what may happen to a round (`adapters/store/bench_rounds`), running it (`services/bench/rounds`)."""

from datetime import datetime

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field, SQLModel

from wavegate_server.adapters.database.columns import time_column

__all__ = ["BenchArtifact", "BenchCandidate", "BenchRound"]


class BenchRound(SQLModel, table=True):
    """Candidates measured beside their original on one device of a class."""

    __tablename__ = "bench_round"
    id: str = Field(primary_key=True)
    hardware_class: str = Field(index=True)
    model: str
    state: str = Field(index=True)  # queued | running | done | failed | cancelled
    reason: str = ""  # one plain sentence: why it is in this state
    device_id: str = ""  # empty until one is chosen
    timeout_s: float  # for one candidate, from the order to the report
    wait_s: float  # for a device
    listed: bool = False  # its targets stand in the release list
    created_at: datetime = time_column()
    created_by: str = ""
    started_at: datetime | None = time_column(nullable=True)
    finished_at: datetime | None = time_column(nullable=True)
    revision: int = 1


class BenchCandidate(SQLModel, table=True):
    """One candidate of a round; number 0 is the original, which the others are measured beside."""

    __tablename__ = "bench_candidate"
    round_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    name: str
    state: str = "waiting"  # waiting | sent | benched | failed | timed_out | skipped
    manifest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    manifest_sha256: str
    size_bytes: int  # of the model file
    seq: int = 0  # of the assignment that carried it
    sent_at: datetime | None = time_column(nullable=True)
    finished_at: datetime | None = time_column(nullable=True)
    code: str | None = None
    detail: str = ""
    report_id: int | None = None  # the device's signed report


class BenchArtifact(SQLModel, table=True):
    """Which stored object each artifact of a candidate is; devices may fetch it while the round runs."""

    __tablename__ = "bench_artifact"
    round_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    name: str = Field(primary_key=True)
    sha256: str = Field(index=True)
