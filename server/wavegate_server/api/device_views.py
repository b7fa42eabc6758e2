"""What the API takes and gives about devices."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from wavegate_server.adapters.reads.device import DeviceDetail
from wavegate_server.adapters.reads.fleet import DeviceFilter, Health

__all__ = [
    "DeviceChange",
    "DeviceSummary",
    "DeviceToken",
    "DeviceView",
    "EventView",
    "Explanation",
    "FilterBody",
    "HistoryView",
    "Labels",
    "NewDevice",
    "NewDeviceAnswer",
    "Place",
    "RemoveRequest",
    "RevokeRequest",
    "SeriesView",
    "SlotView",
]

Place = Annotated[str, StringConstraints(pattern=r"^\w[\w .-]{0,62}$")]
"""A hardware class or site: letters of any script, digits, and `_ . -` or blank inside; no comma or `=`, which filters use."""
LabelKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Labels = dict[LabelKey, Place]
DeviceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class NewDevice(BaseModel):
    """The device to register."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={
            "examples": [{"id": "kiosk-1", "class": "edge-a", "site": "berlin", "labels": {"ring": "early"}}]
        },
    )

    id: DeviceId
    hardware_class: Place = Field(alias="class")
    site: Place
    labels: Labels = Field(default={}, max_length=32)
    bench: bool = Field(
        default=False, description="to be enrolled for benching: measures candidates beside what it serves"
    )
    token: bool = Field(default=True, description="make an enrolment token with it")


class DeviceChange(BaseModel):
    """The changes of a device; a field that is left out keeps its value, a label set to null is removed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"labels": {"ring": "late"}}]})

    site: Place | None = None
    labels: dict[LabelKey, Place | None] | None = Field(default=None, max_length=32)
    bench: bool | None = Field(default=None, description="reaches the device when it enrols anew")


class RevokeRequest(BaseModel):
    """Reason for the revocation."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "stolen"}]})

    reason: str = Field(default="", max_length=300)


class RemoveRequest(BaseModel):
    """Reason for taking a model away."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "site is closed"}]})

    reason: str = Field(default="", max_length=300)


class FilterBody(BaseModel):
    """A filter of devices: all given fields must match; a field that is left out matches every device."""

    model_config = ConfigDict(
        extra="forbid", populate_by_name=True, json_schema_extra={"examples": [{"class": "edge-a", "site": "berlin"}]}
    )

    hardware_class: Place | None = Field(default=None, alias="class")
    site: Place | None = None
    labels: Labels = Field(default={}, max_length=32)
    model: Annotated[str, StringConstraints(max_length=63)] | None = None
    version: int | None = Field(default=None, ge=0, le=2**31 - 1, description="running version; needs `model`")

    def rows(self) -> DeviceFilter:
        """As the reads take it: active devices only, since no other can take an assignment."""
        return DeviceFilter(
            hardware_class=self.hardware_class,
            site=self.site,
            model=self.model,
            version=self.version,
            state="active",
            labels=tuple(self.labels.items()),
        )


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RecentView(_View):
    """The last 30 minutes of the running version; null: nothing was measured."""

    requests: int
    errors: int
    rate_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    score: float | None = Field(description="live metric from label feedback, in the metric's unit")
    labels: int = Field(description="how many labels `score` is the mean of")


class SlotView(_View):
    """One model of a device: what it says it runs, and what it was assigned."""

    slot: str = Field(description="the model's name too")
    model: str
    version: int = Field(description="0: nothing of this model runs")
    standby_version: int
    state: str
    sha256: str
    assigned_version: int = Field(description="0: nothing of this model is assigned")
    seq: int = Field(description="assignment that first named `assigned_version`")
    removed: bool = Field(description="it was assigned to be taken away")


class DeviceSummary(_View):
    """A device in a list."""

    id: str
    health: Health
    state: str = Field(description="pending, active or revoked")
    hardware_class: str = Field(serialization_alias="class")
    site: str
    model: str = Field(
        description="the model that stands for the device: one in trouble, one being updated, else the first"
    )
    version: int = Field(description="0: nothing runs yet")
    standby_version: int
    slots: list[SlotView]
    phase: str = Field(description="the agent's own state")
    agent_version: str
    clock: str
    last_seen: datetime | None
    revision: int
    bench: bool = Field(description="measures candidates beside what it serves, once it enrolled so")
    recent: RecentView


class DeviceView(DeviceSummary):
    """A device with all its details."""

    facts: dict[str, Any]
    quarantined: list[str]
    labels: dict[str, str]
    created_at: datetime | None
    enrolled_at: datetime | None
    certificate_expires: datetime | None
    cloned: str = Field(
        description="two machines that use this identity in turn, named; empty: none. See reissue_device"
    )
    bytes_fetched: int
    requests_served: int
    assignment_seq: int = Field(description="highest assignment the device accepted")
    assigned_version: int
    assigned_seq: int = Field(description="newest assignment made for it")
    acknowledged: bool

    @classmethod
    def of(cls, detail: DeviceDetail) -> "DeviceView":
        """From the read model, whose row is spread into the view."""
        row = DeviceSummary.model_validate(detail.row).model_dump()
        own = {name: getattr(detail, name) for name in cls.model_fields if name not in DeviceSummary.model_fields}
        return cls.model_validate({**row, **own})


class DeviceToken(BaseModel):
    """A one-time enrolment token: shown this once."""

    device: str
    token: str
    expires_at: datetime


class NewDeviceAnswer(BaseModel):
    """A registered device, with its enrolment token when one was asked for."""

    device: DeviceView
    token: DeviceToken | None


class EventView(_View):
    """One line of a device's event log."""

    id: int
    at: datetime
    kind: str
    slot: str
    model: str
    version: int
    state: str
    code: str | None
    detail: str
    assignment_seq: int


class HistoryView(_View):
    """How one assignment ended, by the device's signed report. Ratios are candidate / active on that device."""

    at: datetime
    assignment_seq: int
    rollout: str | None
    model: str
    version: int
    active_version: int
    outcome: str
    code: str | None
    bytes_fetched: int
    served: int
    self_requests: int
    golden_value: float | None
    golden_limit: float | None
    cpu_ratio: float | None
    p99_ms: float | None
    swap_ms: float | None


class HistoryAnswer(BaseModel):
    """The newest reports, newest first."""

    items: list[HistoryView]


class WhyStepView(_View):
    """One reason in the explanation of a device's version."""

    at: datetime | None
    code: str = Field(description="stable name of the kind of reason")
    sentence: str
    values: dict[str, str]
    rollout: str | None
    said: dict[str, Any] = Field(
        default={}, description="`values.sentence` as `code` and `params`; empty: no sentence, or a text without a code"
    )


class Explanation(_View):
    """Why a device runs what it runs: reasons, newest first, each a plain sentence with its data."""

    device: str
    model: str
    version: int
    steps: list[WhyStepView]


class SwapView(_View):
    """A moment at which the version that answers changed."""

    at_s: float
    version: int
    kind: str


class SeriesView(_View):
    """Columns of equal length, one entry per point; null: nothing was measured. `t` is Unix seconds of a point's start."""

    device: str
    model: str
    start_s: int
    end_s: int
    level: int = Field(description="source in seconds: 0 is raw windows, else a roll-up of 60, 3600 or 86400 s")
    step_s: int
    t: list[int]
    p50_ms: list[float | None]
    p95_ms: list[float | None]
    p99_ms: list[float | None]
    score: list[float | None]
    labels: list[int]
    rate_per_s: list[float | None]
    errors: list[int]
    rss_mb: list[float | None]
    anon_mb: list[float | None]
    version: list[int | None]
    swaps: list[SwapView]
