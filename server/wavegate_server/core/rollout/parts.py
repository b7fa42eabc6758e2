"""A transition in parts, so that a decision about twenty thousand devices never holds the books for longer than about a hundred do.

How to think of this: what concerns the rollout itself is one small write; what concerns its devices can be long. A start, a wave and a
rollback write the decision first, with the first devices, and the rows that are left say what is still to do: the same step,
taken again after a kill, gives the rest. Every other decision (an abort, deadlines that start anew) writes its rows first and itself
last; should it be cut in between, whoever decided it decides again. An abort pauses the rollout before, so that nothing new begins.

Not here: writing them (`adapters/store/rollout_parts`).
"""

from dataclasses import replace

from wavegate_server.core.rollout.plan import DeviceChange, RolloutView, Transition
from wavegate_shared.states import RolloutState

__all__ = ["PART", "goes_on", "parts"]

PART = 100
"""So many devices are written in one transaction: about 15 ms."""


def goes_on(transition: Transition) -> bool:
    """Whether the step, taken again after the first part, gives the rest: a wave begins or a rollback was decided."""
    rest = transition.state is None and not transition.action and not transition.waves and transition.gate is None
    return bool(transition.publish) or transition.state is RolloutState.ROLLING_BACK or rest


def parts(view: RolloutView, transition: Transition, size: int = PART) -> list[Transition]:
    """The transition, cut: written in this order they are the whole of it. One of few devices is one part."""
    rows = _rows(transition, size)
    if len(rows) <= 1:
        return [transition]
    if goes_on(transition):
        first = replace(transition, devices=rows[0].devices, publish=rows[0].publish, restore=rows[0].restore)
        return [first, *rows[1:]]
    last = replace(transition, devices=rows[-1].devices, publish=rows[-1].publish, restore=rows[-1].restore)
    before = rows[:-1]
    if transition.state is RolloutState.CANCELLED and view.state is not RolloutState.PAUSED:
        before.insert(0, Transition(state=RolloutState.PAUSED, reason=transition.reason))
    return [*before, last]


def _rows(transition: Transition, size: int) -> list[Transition]:
    """The devices of a transition, at most `size` in each; what concerns one device stays together."""
    changes = {change.device: change for change in transition.devices}
    restore, publish = set(transition.restore), set(transition.publish)
    names = list(dict.fromkeys((*changes, *transition.restore, *transition.publish)))
    cut = []
    for at in range(0, len(names), size):
        some = names[at : at + size]
        changed: list[DeviceChange] = [changes[name] for name in some if name in changes]
        cut.append(
            Transition(
                devices=tuple(changed),
                publish=tuple(name for name in some if name in publish),
                restore=tuple(name for name in some if name in restore),
            )
        )
    return cut
