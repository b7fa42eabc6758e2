"""What the API takes and gives about bench rounds."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from wavegate_server.adapters.database.tables import BenchRound

__all__ = ["BenchCandidateView", "BenchRoundSummary", "BenchRoundView"]


class BenchRoundSummary(BaseModel):
    """A bench round in a list."""

    id: str
    hardware_class: str = Field(serialization_alias="class")
    model: str
    state: str = Field(description="queued, running, done, failed or cancelled")
    reason: str = Field(description="one plain sentence: why it is in this state")
    device: str = Field(description="which device measures; empty until one is chosen")
    timeout_s: float
    wait_s: float
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    revision: int

    @classmethod
    def of(cls, row: BenchRound) -> "BenchRoundSummary":
        """From the row."""
        return cls.model_validate({**row.model_dump(), "device": row.device_id})


class BenchCandidateView(BaseModel):
    """One candidate, and what the device said of it in its signed report."""

    name: str
    state: str = Field(description="waiting, sent, benched, failed, timed_out or skipped")
    size_bytes: int
    manifest_sha256: str
    code: str | None
    detail: str
    finished_at: datetime | None
    bench: dict[str, Any] | None = Field(description="as in the report: this candidate, and the original in `beside`")
    golden: dict[str, Any] | None = Field(description="the golden set's result on the device")
    report_id: int | None = Field(description="the signed report, kept word for word")


class BenchRoundView(BenchRoundSummary):
    """A bench round with all its details. `candidates` leaves the original out: its figures stand beside each candidate's."""

    original_size_bytes: int
    candidates: list[BenchCandidateView]
