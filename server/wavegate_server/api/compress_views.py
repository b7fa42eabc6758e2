"""What the API takes and gives about compression jobs."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from wavegate_server.adapters.database.tables import CompressJob
from wavegate_server.adapters.store.compress_jobs import TIME_LIMITS_S
from wavegate_shared.metrics import Direction

__all__ = [
    "BudgetText",
    "ClassName",
    "CompressEventView",
    "CompressJobView",
    "JobSeconds",
    "NewCompressJob",
    "RecordedJob",
]

BudgetText = Annotated[str, StringConstraints(max_length=300)]
ClassName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[A-Za-z0-9._-]*$")]
JobSeconds = Annotated[float, Field(ge=TIME_LIMITS_S[0], le=TIME_LIMITS_S[1])]


class NewCompressJob(BaseModel):
    """The compression job to create."""

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


_RECORDED: JsonDict = {
    "model": "address-match",
    "version": 1,
    "result_version": 2,
    "budget": "size=-70%",
    "time_s": 600,
    "used_s": 74.2,
    "result": {
        "verdicts": [{"item": "size=-70%", "met": True, "value": -0.712, "low": None, "high": None}],
        "candidates": [
            {"recipe": "original", "size_bytes": 11900000, "p50_ms": 4.1, "offered": False},
            {"recipe": "int8-dynamic", "size_bytes": 3420000, "p50_ms": 1.7, "drop_pt": 0.1, "offered": True},
        ],
        "chosen": "int8-dynamic",
    },
}


class _Recorded(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class RecordedVerdict(_Recorded):
    """Whether one budget item is met."""

    item: Annotated[str, StringConstraints(max_length=100)]
    met: bool
    value: float
    low: float | None = None
    high: float | None = None


class RecordedCandidate(_Recorded):
    """One tried recipe; figures are null where it gave nothing to measure."""

    recipe: Annotated[str, StringConstraints(max_length=200)]
    size_bytes: int | None = Field(default=None, ge=0, le=10**15)
    p50_ms: float | None = Field(default=None, ge=0, le=1e9)
    metric: float | None = None
    drop_pt: float | None = Field(default=None, ge=-1e9, le=1e9)
    drop_high_pt: float | None = Field(default=None, ge=-1e9, le=1e9)
    agreement: float | None = None
    offered: bool
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""
    reason_said: dict[str, Any] = {}
    pareto: bool = False
    verdicts: list[RecordedVerdict] = Field(default=[], max_length=20)


class RecordedComparison(_Recorded):
    """One row of the before/after table."""

    name: Annotated[str, StringConstraints(max_length=60)]
    unit: Annotated[str, StringConstraints(max_length=30)]
    before: float | None
    after: float | None


class RecordedMetric(_Recorded):
    """The metric that the candidates are judged by."""

    name: Annotated[str, StringConstraints(max_length=60)]
    unit: Annotated[str, StringConstraints(max_length=30)]
    direction: Direction


class RecordedResult(_Recorded):
    """What `wavegate compress --json` prints, as far as the pages show it."""

    verdicts: list[RecordedVerdict] = Field(max_length=20)
    candidates: list[RecordedCandidate] = Field(max_length=200)
    chosen: str | None
    words: list[str] = Field(default=[], max_length=20)
    metric: RecordedMetric | None = None
    comparison: list[RecordedComparison] = Field(default=[], max_length=20)
    samples: int = Field(default=0, ge=0)
    measured_on: Annotated[str, StringConstraints(max_length=200)] = "host only"
    threads: int = 1
    notes: list[str] = Field(default=[], max_length=200)
    notes_said: list[dict[str, Any]] = Field(default=[], max_length=200)
    seconds: float = 0.0
    hardware_class: str | None = Field(default=None, alias="for")


class RecordedJob(BaseModel):
    """A compression that ran elsewhere, for the model's page."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [_RECORDED]})

    model: Annotated[str, StringConstraints(max_length=63)]
    version: int = Field(ge=1, le=2**31 - 1)
    result_version: int | None = Field(default=None, ge=1, le=2**31 - 1)
    budget: BudgetText
    hardware_class: ClassName = Field(default="", alias="class")
    time_s: float = Field(gt=0, le=1e7)
    used_s: float = Field(default=0.0, ge=0, le=1e7)
    result: RecordedResult


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
    said: dict[str, Any] = Field(
        default={},
        description="`reason` as `code` and `params`, the same in every language; empty: a text without a code",
    )
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
        facts = {**job.model_dump(), "progress": job.progress or {}, "result": job.result or {}, "said": job.said or {}}
        return cls.model_validate({**facts, "class": job.device_class, "hardware_class": job.device_class})
