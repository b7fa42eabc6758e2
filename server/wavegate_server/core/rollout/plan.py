"""A rollout as the engine sees it, and what one step changes: data only. The rules are `step` and `actions`."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from wavegate_server.core.gate.policy import Policy
from wavegate_server.core.gate.verdict import Decision, GateEvidence
from wavegate_shared.manifest import Slo
from wavegate_shared.states import AssignmentState, RolloutState, WaveState

__all__ = [
    "UNFINISHED",
    "DeviceChange",
    "DeviceView",
    "GateRecord",
    "RolloutView",
    "Transition",
    "WaveChange",
    "WaveView",
]

UNFINISHED = frozenset(
    {
        RolloutState.DRAFT,
        RolloutState.SCHEDULED,
        RolloutState.RUNNING,
        RolloutState.PAUSED,
        RolloutState.ROLLING_BACK,
    }
)
"""A device may be in one rollout of these states at a time."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device in the rollout. Times are None until reached.

    Attributes:
        current: its newest assignment is this rollout's.
        runs, ordered: version of the rollout's model that it says it runs, and that its newest assignment names; 0: none.
        back: version that it can go back to from this rollout's; 0: none.
        revoked: it is not heard any more.
        live_requests: that it served with the version by its last word about them; None: it has said nothing.
        undecided: a rollback was decided, and its own part in it is not written yet.
    """

    device: str
    wave: int
    state: AssignmentState
    previous_version: int = 0
    current: bool = True
    published_at: datetime | None = None
    accepted_at: datetime | None = None
    swapped_at: datetime | None = None
    deadline: datetime | None = None
    last_seen: datetime | None = None
    code: str | None = None
    reason: str = ""
    rollback_seq: int = 0
    runs: int = 0
    ordered: int = 0
    back: int = 0
    revoked: bool = False
    live_requests: int | None = None
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class WaveView:
    """One wave."""

    number: int
    name: str
    state: WaveState
    size: int
    started_at: datetime | None = None
    soak_started_at: datetime | None = None
    approved_by: str = ""

    def soak_ends(self, soak_s: float) -> str:
        """When its soak will be over, as `2026-03-01 12:00:00` in UTC; empty while it does not soak."""
        if self.state is not WaveState.SOAKING or self.soak_started_at is None:
            return ""
        return f"{self.soak_started_at + timedelta(seconds=soak_s):%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True, slots=True)
class RolloutView:
    """The whole rollout at one time.

    Attributes:
        wave: number of the current wave.
        since: when this controller took over (its start); deadlines and silence are not counted against devices before
            `since` plus the policy's grace.
        metrics: how many metrics the gate compares.
        late: it gives a fleet default to devices that came late.
        revision: raised by every decision about it.
        touched: raised by every word of a device that is in it.
    """

    id: str
    model: str
    version: int
    state: RolloutState
    wave: int
    policy: Policy
    waves: tuple[WaveView, ...]
    devices: tuple[DeviceView, ...]
    since: datetime
    slo: Slo
    metrics: int = 3
    reason: str = ""
    late: bool = False
    revision: int = 0
    touched: int = 0

    def members(self, wave: int) -> list[DeviceView]:
        """The devices of one wave."""
        return [device for device in self.devices if device.wave == wave]


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What becomes of one device's row. None leaves a field alone; `reason` always replaces, a `Sentence` or what stood there."""

    device: str
    state: AssignmentState | None = None
    code: str | None = None
    reason: str = ""
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class WaveChange:
    """What becomes of one wave's row. `at` is the time of the change."""

    number: int
    state: WaveState | None = None
    approved_by: str | None = None


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A decision to be stored with its inputs. `final`: it was acted on."""

    wave: int
    evidence: GateEvidence
    decision: Decision
    final: bool


@dataclass(frozen=True, slots=True)
class Transition:
    """Everything one step decided. What concerns the rollout is written at once; rows of many devices in `parts`.

    Attributes:
        state, wave, reason: of the rollout; None leaves it alone.
        publish: devices that get this rollout's assignment now.
        restore: devices that get their previous version as assignment now.
        deny: mark the version so that it is not offered again.
        sentence: for the audit log; empty when nothing worth a row happened. It and `reason` are `Sentence`s.
    """

    state: RolloutState | None = None
    wave: int | None = None
    reason: str | None = None
    waves: tuple[WaveChange, ...] = ()
    devices: tuple[DeviceChange, ...] = ()
    publish: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    gate: GateRecord | None = None
    deny: bool = False
    action: str = ""
    sentence: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return self == Transition()
