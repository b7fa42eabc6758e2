"""What the API takes and gives about models and versions."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wavegate_shared.metrics import Direction

__all__ = ["AliasBody", "ImportAnswer", "ModelView", "VersionView"]


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class MetricView(_View):
    """The metric that versions of a model are judged by."""

    name: str
    unit: str
    direction: Direction


class ComparisonView(_View):
    """One row of the before/after table a version was signed with; null: not measured."""

    name: str
    unit: str
    before: float | None
    after: float | None


class ArtifactView(_View):
    """One file of a version."""

    name: str
    role: str
    sha256: str
    size_bytes: int


class RequiresView(_View):
    """What a version requires of a device; zero or empty: no requirement."""

    memory_mb: int
    runtime_min: str
    opset: int
    domains: list[str]
    providers: list[str]
    classes: list[str]


class SloView(_View):
    """Absolute limits that a version promises to keep; null: no limit."""

    p95_ms: float | None
    peak_memory_mb: float | None
    error_ceiling: float | None


class VersionView(_View):
    """One immutable version."""

    model: str
    number: int
    state: str = Field(description="imported, published or revoked")
    denied: bool = Field(description="a gate rolled it back; not offered again")
    recipe: str
    parent: int | None
    created_at: datetime
    published_at: datetime | None
    size_bytes: int
    manifest_sha256: str
    metric: MetricView
    metric_value: float | None = Field(description="on the host, over the golden set")
    golden_limit: float
    golden_samples: int
    comparison: list[ComparisonView]
    artifacts: list[ArtifactView]
    requires: RequiresView
    slo: SloView
    licence: str
    devices: int = Field(description="active devices that run it now")
    info: dict[str, Any]


class ModelView(_View):
    """A named line of versions."""

    name: str
    task: str
    description: str
    created_at: datetime
    champion: int | None
    challenger: int | None
    revision: int
    versions: int
    newest: VersionView | None
    devices: int


class ImportAnswer(BaseModel):
    """The version a bundle became, or already was."""

    created: bool = Field(description="false when the same bundle was imported before")
    version: VersionView
    warnings: list[str] = Field(default=[], description="limits of hardware classes that the model is above")


class AliasBody(BaseModel):
    """The version an alias names; null: none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 3}]})

    version: int | None = Field(ge=1, le=2**31 - 1)


class RevokeVersion(BaseModel):
    """Reason for revoking a version."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "trained on wrong labels"}]})

    reason: str = Field(default="", max_length=300)
