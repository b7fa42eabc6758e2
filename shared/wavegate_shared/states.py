"""State names that cross the wire or stand in tables.

The transitions are the parts' own: see the agent's `core/machine.py` and the server's `core/rollout/step.py`.
"""

from enum import StrEnum

__all__ = ["AssignmentState", "DeviceState", "Outcome", "RolloutState", "WaveState"]


class DeviceState(StrEnum):
    """Where a device stands with the assignment it works on."""

    IDLE = "idle"
    OFFERED = "offered"
    PREFLIGHT = "preflight"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    LOADING = "loading"
    GOLDEN = "golden"
    BENCH = "bench"
    READY = "ready"
    SWAPPING = "swapping"
    PROBATION = "probation"
    COMMITTED = "committed"
    DISCARDING = "discarding"
    REVERTING = "reverting"
    FALLBACK = "fallback"
    BROKEN = "broken"
    REMOVING = "removing"


class Outcome(StrEnum):
    """How an assignment ended on the device; the last word of a signed report. `benched`: measured and let go, nothing changed.

    `removed`: the model was taken away from the device.
    """

    PROVEN = "proven"
    REFUSED = "refused"
    REVERTED = "reverted"
    DEFERRED = "deferred"
    BROKEN = "broken"
    BENCHED = "benched"
    REMOVED = "removed"


class RolloutState(StrEnum):
    """The state of a rollout."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


class WaveState(StrEnum):
    """A wave's life."""

    PENDING = "pending"
    RUNNING = "running"
    SOAKING = "soaking"
    PASSED = "passed"
    FAILED = "failed"


class AssignmentState(StrEnum):
    """One device in one rollout."""

    SCHEDULED = "scheduled"
    PUBLISHED = "published"
    ACCEPTED = "accepted"
    SWAPPED = "swapped"
    PROVEN = "proven"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"
    DEFERRED = "deferred"
