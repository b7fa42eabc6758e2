"""What the API takes and gives about rollouts."""

import json
from collections import defaultdict
from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic.config import JsonDict

from wavegate_server.adapters.reads.rollouts import RolloutDetail
from wavegate_server.api.device_views import DeviceId, FilterBody
from wavegate_server.core.gate.policy import Policy
from wavegate_server.core.rollout.late_joiners import Choice

__all__ = [
    "ActionBody",
    "DeviceChoice",
    "NewRollout",
    "RolloutExplanation",
    "RolloutSummary",
    "RolloutView",
    "lasting_choice",
]

_EXAMPLE: JsonDict = {
    "model": "address-match",
    "version": 2,
    "devices": {"filter": {"site": "berlin"}},
    "policy": {"waves": [{"name": "canary", "count": 1}, {"name": "rest", "percent": 100}], "soak_s": 3600},
}


def _policy_schema() -> dict[str, Any]:
    """The policy's JSON schema, from the struct that checks it, with every reference written out."""
    (_,), parts = msgspec.json.schema_components((Policy,), ref_template="{name}")

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            return (
                inline(parts[node["$ref"]]) if "$ref" in node else {key: inline(value) for key, value in node.items()}
            )
        return [inline(item) for item in node] if isinstance(node, list) else node

    schema: dict[str, Any] = json.loads(json.dumps(inline(parts["Policy"])))  # tuples become lists
    return schema


PolicyJson = Annotated[dict[str, Any], WithJsonSchema(_policy_schema())]


class DeviceChoice(BaseModel):
    """Which devices: exactly one of `all`, `ids` and `filter`. `all` and `filter` mean active devices."""

    model_config = ConfigDict(extra="forbid")

    all: bool = False
    ids: list[DeviceId] | None = Field(default=None, min_length=1, max_length=10_000)
    filter: FilterBody | None = None

    @model_validator(mode="after")
    def _one(self) -> "DeviceChoice":
        if sum((self.all, self.ids is not None, self.filter is not None)) != 1:
            raise ValueError("give exactly one of all, ids and filter")
        return self


def lasting_choice(chosen: DeviceChoice) -> Choice | None:
    """The selection, where it also says something of devices to come: not single ones, and not what they run now."""
    if chosen.all:
        return Choice()
    if chosen.filter is None or chosen.filter.model is not None or chosen.filter.version is not None:
        return None
    found = chosen.filter
    return Choice(hardware_class=found.hardware_class or "", site=found.site or "", labels=dict(found.labels))


class NewRollout(BaseModel):
    """The rollout to plan."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    model: Annotated[str, StringConstraints(max_length=63)]
    version: int = Field(ge=1, le=2**31 - 1)
    devices: DeviceChoice
    policy: PolicyJson = Field(default={}, description="fields left out take their defaults")
    allow_denied: bool = Field(default=False, description="also a version that a gate rolled back before")


class ActionBody(BaseModel):
    """Reason for the action, kept in the audit log."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "complaints from berlin"}]})

    reason: str = Field(default="", max_length=300)


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RolloutSummary(_View):
    """A rollout in a list."""

    id: str
    model: str
    version: int
    state: str
    wave: int = Field(description="number of the current wave, from 0")
    waves: int = Field(description="how many waves it has")
    reason: str = Field(description="one plain sentence: why it is in this state")
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    next_at: datetime | None
    revision: int
    devices: dict[str, int] = Field(description="state -> number of devices")
    said: dict[str, Any] = Field(
        default={},
        description="`reason` as `code` and `params`, the same in every language; empty: a text without a code",
    )


class MemberView(_View):
    """One device in the rollout. Times are null until that step was reached."""

    device: str
    hardware_class: str = Field(serialization_alias="class")
    site: str
    state: str
    previous_version: int
    attempt: int
    assignment_seq: int
    published_at: datetime | None
    accepted_at: datetime | None
    swapped_at: datetime | None
    finished_at: datetime | None
    deadline: datetime | None
    code: str | None
    reason: str
    said: dict[str, Any] = Field(
        default={},
        description="`reason` as `code` and `params`, the same in every language; empty: a text without a code",
    )


class WaveView(_View):
    """One wave with its devices."""

    number: int
    name: str
    state: str
    size: int
    started_at: datetime | None
    soak_started_at: datetime | None
    finished_at: datetime | None
    devices: list[MemberView]


class GateView(_View):
    """One decision of the gate, with all its inputs."""

    id: int
    wave: int
    at: datetime
    verdict: str = Field(description="promote, hold or rollback")
    sentence: str
    said: dict[str, Any] = Field(
        default={},
        description="`sentence` as `code` and `params`, the same in every language; empty: a text without a code",
    )
    final: bool = Field(description="it was acted on")
    evidence: dict[str, Any]


class RolloutView(RolloutSummary):
    """A rollout with all its details."""

    policy: dict[str, Any]
    wave_list: list[WaveView]
    gates: list[GateView] = Field(description="newest first")

    @classmethod
    def of(cls, detail: RolloutDetail) -> "RolloutView":
        """From the read model, whose row is spread into the view."""
        return cls(
            **RolloutSummary.model_validate(detail.row).model_dump(),
            policy=detail.policy,
            wave_list=[WaveView.model_validate(wave) for wave in detail.waves],
            gates=[GateView.model_validate(gate) for gate in detail.gates],
        )


class Reason(BaseModel):
    """One reason. `code`: `rollout`, `gate` or `devices`; `at` is null where no time belongs to it."""

    at: datetime | None
    code: str
    sentence: str


class RolloutExplanation(BaseModel):
    """Why a rollout is where it is: reasons, each a plain sentence."""

    rollout: str
    state: str
    steps: list[Reason]

    @classmethod
    def of(cls, detail: RolloutDetail) -> "RolloutExplanation":
        """Its state first, then what the gate decided (newest first), then the devices that did not make it."""
        row = detail.row
        at = row.finished_at or row.started_at or row.created_at
        steps = [
            Reason(at=at, code="rollout", sentence=f"{row.model} v{row.version} is {row.state}: {row.reason or '-'}")
        ]
        steps += [
            Reason(
                at=gate.at,
                code="gate",
                sentence=f"After wave {gate.wave + 1} the gate said {gate.verdict}: {gate.sentence}",
            )
            for gate in detail.gates
        ]
        failures: dict[str, list[str]] = defaultdict(list)
        for wave in detail.waves:
            for member in wave.devices:
                if member.code:
                    failures[member.code].append(member.device)
        steps += [
            Reason(at=None, code="devices", sentence=f"{len(names)} ended with {code}: {_some(names)}")
            for code, names in sorted(failures.items())
        ]
        return cls(rollout=row.id, state=row.state, steps=steps)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
