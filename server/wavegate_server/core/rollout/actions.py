"""What operators may do to a rollout. Every action is idempotent: done twice, it changes nothing the second time.

Source: docs/adr/0009-a-rollout-is-a-pure-step.md.
"""

from datetime import datetime, timedelta
from typing import Literal, get_args

from wavegate_server.core.rollout.plan import UNFINISHED, DeviceChange, RolloutView, Transition, WaveChange
from wavegate_server.core.rollout.step import holders, roll_back, roll_back_again
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.states import AssignmentState, RolloutState, WaveState

__all__ = ["ACTIONS", "Action", "act", "possible"]

Action = Literal["approve", "pause", "resume", "abort", "rollback"]
ACTIONS: tuple[Action, ...] = get_args(Action)

_DONE: dict[Action, frozenset[RolloutState]] = {
    "approve": frozenset(),
    "pause": frozenset({RolloutState.PAUSED}),
    "resume": frozenset({RolloutState.RUNNING, RolloutState.SCHEDULED}),
    "abort": frozenset({RolloutState.CANCELLED}),
    "rollback": frozenset({RolloutState.ROLLED_BACK}),
}
_ALLOWED: dict[Action, frozenset[RolloutState]] = {
    "approve": frozenset({RolloutState.DRAFT, RolloutState.RUNNING, RolloutState.PAUSED}),
    "pause": frozenset({RolloutState.RUNNING, RolloutState.SCHEDULED}),
    "resume": frozenset({RolloutState.PAUSED}),
    "abort": UNFINISHED - {RolloutState.ROLLING_BACK},
    "rollback": frozenset(
        {
            RolloutState.RUNNING,
            RolloutState.PAUSED,
            RolloutState.COMPLETED,
            RolloutState.CANCELLED,
            RolloutState.ROLLING_BACK,
        }
    ),
}
_IN_FLIGHT = frozenset({AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.SWAPPED})
_NOT_SWAPPED = frozenset({AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.DEFERRED})


def act(view: RolloutView, action: Action, *, actor: str, reason: str, now: datetime) -> Transition:
    """The transition of one action; an empty one when it is done already.

    Raises:
        UsageError: `conflict`, when the rollout's state does not allow it, nothing waits for an approval yet, or a rollback could
            bring no device back.
    """
    if view.state in _DONE[action]:
        return Transition()
    if view.state not in _ALLOWED[action]:
        raise UsageError(
            "conflict", Sentence("refused.action", rollout=view.id, rollout_state=view.state.value, action=action)
        )
    if action == "approve":
        return _approve(view, actor)
    if action == "pause":
        return _plain(RolloutState.PAUSED, "pause", Sentence("action.paused", name=actor, because=reason))
    if action == "resume":
        return _resume(view, actor, reason, now)
    if action == "abort":
        return _abort(view, actor, reason)
    if view.state is RolloutState.ROLLING_BACK:
        return roll_back_again(view, now)
    return _roll_back(view, actor, reason, now)


def possible(view: RolloutView, action: Action, now: datetime) -> bool:
    """Whether `act` would do it now: it is neither refused nor done already."""
    try:
        return not act(view, action, actor="", reason="", now=now).empty
    except UsageError:
        return False


def _roll_back(view: RolloutView, actor: str, reason: str, now: datetime) -> Transition:
    transition = roll_back(view, Sentence("action.rolled_back", name=actor, because=reason), now)
    if transition.state is RolloutState.CANCELLED:
        raise UsageError("conflict", Sentence("refused.no_way_back", version=view.version, model=view.model))
    if view.state in (RolloutState.COMPLETED, RolloutState.CANCELLED) and not (holders(view) or transition.restore):
        raise UsageError(
            "conflict", Sentence("refused.runs_nowhere", rollout=view.id, version=view.version, model=view.model)
        )
    return transition


def _plain(state: RolloutState, action: str, said: Sentence) -> Transition:
    return Transition(state=state, reason=said, action=f"rollout.{action}", sentence=said)


def _approve(view: RolloutView, actor: str) -> Transition:
    if view.state is RolloutState.DRAFT:
        return _plain(RolloutState.SCHEDULED, "approve", Sentence("action.approved", name=actor))
    wave = view.waves[view.wave]
    if wave.approved_by:
        return Transition()
    if wave.state is not WaveState.SOAKING:
        raise UsageError("conflict", Sentence("refused.nothing_waits", rollout=view.id, wave=wave.name))
    sentence = Sentence("action.approved_wave", name=actor, wave=wave.name)
    return Transition(
        waves=(WaveChange(wave.number, approved_by=actor),),
        reason=sentence,
        action="rollout.approve",
        sentence=sentence,
    )


def _resume(view: RolloutView, actor: str, reason: str, now: datetime) -> Transition:
    begun = view.waves[0].state is not WaveState.PENDING
    said = Sentence("action.resumed", name=actor, because=reason)
    resumed = _plain(RolloutState.RUNNING if begun else RolloutState.SCHEDULED, "resume", said)
    deadline = now + timedelta(seconds=view.policy.deadline_s)
    fresh = [
        DeviceChange(device.device, reason=device.reason, deadline=deadline)
        for device in view.devices
        if device.state in _IN_FLIGHT
    ]
    return Transition(
        state=resumed.state,
        reason=resumed.reason,
        devices=tuple(fresh),
        action=resumed.action,
        sentence=resumed.sentence,
    )


def _abort(view: RolloutView, actor: str, reason: str) -> Transition:
    """Stop where it is: no new device, orders not carried out yet are withdrawn, devices that swapped keep the version."""
    stopped = _plain(RolloutState.CANCELLED, "abort", Sentence("action.aborted", name=actor, because=reason))
    changes = [
        DeviceChange(device.device, AssignmentState.SKIPPED, reason=Sentence("device.aborted"))
        for device in view.devices
        if device.state is AssignmentState.SCHEDULED or device.state in _NOT_SWAPPED
    ]
    withdrawn = tuple(d.device for d in view.devices if d.state in _NOT_SWAPPED and d.current)
    return Transition(
        state=stopped.state,
        reason=stopped.reason,
        devices=tuple(changes),
        restore=withdrawn,
        action=stopped.action,
        sentence=stopped.sentence,
    )
