"""What the API takes and gives about compression jobs."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from wavegate_server.adapters.compress_jobs import TIME_LIMITS_S
from wavegate_server.adapters.tables import CompressJob

__all__ = ["BudgetText", "ClassName", "CompressEventView", "CompressJobView", "JobSeconds", "NewCompressJob"]

BudgetText = Annotated[str, StringConstraints(max_length=300)]
ClassName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[A-Za-z0-9._-]*$")]
JobSeconds = Annotated[float, Field(ge=TIME_LIMITS_S[0], le=TIME_LIMITS_S[1])]


class NewCompressJob(BaseModel):
    """A compression to run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"model": "address-match", "version": 1, "budget": "size=-70%,drop=2pt", "time_s": 600}]
        },
    )

    model: Annotated[str, StringConstraints(max_length=63)]
    version: int = Field(ge=1, le=2**31 - 1)
    budget: BudgetText = Field(default="", description="items as size=-70%,drop=2pt; empty: a default for the metric")
    hardware_class: ClassName = Field(default="", alias="class", description="hardware class the result is for")
    time_s: JobSeconds = Field(default=600.0, description="when to stop trying; what was found is judged")


class CompressEventView(BaseModel):
    """One step of a job."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: datetime
    stage: str
    candidate: str = Field(description="the candidate it is about, or empty")
    best: str = Field(description="the best candidate so far, or empty")
    share: float = Field(description="of the job's time, 0 to 1")


class CompressJobView(BaseModel):
    """A compression job."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    model: str
    version: int
    budget: str
    hardware_class: str = Field(serialization_alias="class")
    time_s: float
    state: str = Field(description="queued, running, met, not_met, failed or cancelled")
    code: str | None = Field(description="error code of a failure")
    reason: str = Field(description="one plain sentence: why it is in this state")
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    cancel_asked: bool
    attempt: int = Field(description="how often its process was started")
    used_s: float = Field(description="seconds its processes ran")
    progress: dict[str, Any] = Field(description="the newest event; empty before the first")
    result: dict[str, Any] = Field(
        description="verdicts, candidates, chosen, comparison and what the reader should know; empty until there is one"
    )
    result_version: int | None = Field(description="the version it became, imported and not published")
    log: str = Field(description="the end of what its process printed")
    revision: int

    @classmethod
    def of(cls, job: CompressJob) -> "CompressJobView":
        """From the row."""
        return cls.model_validate({**job.model_dump(), "class": job.device_class, "hardware_class": job.device_class})
