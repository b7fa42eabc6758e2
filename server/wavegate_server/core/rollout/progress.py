"""How a device's own words move its row in a rollout. Late, early and repeated messages are normal; none moves a row back.

A state message may be lost or overtaken, so each implies the ones before it: a device on probation has accepted and swapped.
Only a signed report ends an assignment: proven, failed or deferred. After a rollback was ordered, only words about that order
count.

Source: docs/adr/0009-a-rollout-is-a-pure-step.md; docs/concepts.md (success means proof).
"""

from dataclasses import dataclass

from wavegate_shared.states import AssignmentState, DeviceState, Outcome

__all__ = ["Progress", "after_report", "after_restore_report", "after_state"]

_OPEN = frozenset(
    {AssignmentState.PUBLISHED, AssignmentState.TIMED_OUT, AssignmentState.DEFERRED, AssignmentState.ACCEPTED}
)
_SERVES_IT = frozenset({DeviceState.PROBATION, DeviceState.COMMITTED})
_SAYS_NOTHING = frozenset({DeviceState.IDLE})


@dataclass(frozen=True, slots=True)
class Progress:
    """What becomes of the row: the new state, and which times are to be set unless they are. None: nothing changes."""

    state: AssignmentState | None = None
    accepted: bool = False
    swapped: bool = False
    finished: bool = False


def after_state(current: AssignmentState, device_state: DeviceState) -> Progress:
    """A state message about this row's assignment."""
    if device_state in _SAYS_NOTHING or current not in _OPEN:
        return Progress()
    if device_state in _SERVES_IT:
        return Progress(AssignmentState.SWAPPED, accepted=True, swapped=True)
    if current is AssignmentState.ACCEPTED:
        return Progress()
    return Progress(AssignmentState.ACCEPTED, accepted=True)


def after_report(current: AssignmentState, outcome: Outcome) -> Progress:
    """A signed report about this row's assignment."""
    if current in (AssignmentState.SKIPPED, AssignmentState.ROLLED_BACK):
        return Progress()
    if outcome is Outcome.PROVEN:
        return Progress(AssignmentState.PROVEN, accepted=True, swapped=True, finished=True)
    if outcome is Outcome.DEFERRED:
        return Progress(AssignmentState.DEFERRED, accepted=True)
    return Progress(AssignmentState.FAILED, accepted=True, finished=True)


def after_restore_report(current: AssignmentState, outcome: Outcome) -> Progress:
    """A signed report about the order to go back. A refusal leaves the row: the device still runs what it ran."""
    if current in (AssignmentState.FAILED, AssignmentState.SKIPPED):
        return Progress()
    if outcome is Outcome.PROVEN:
        return Progress(AssignmentState.ROLLED_BACK, finished=True)
    if outcome is Outcome.DEFERRED:
        return Progress()
    return Progress(AssignmentState.FAILED, finished=True)
