"""Which devices of the current wave wait for live requests, and how many the quietest has had. Not here: the sentence (`gate`)."""

from wavegate_server.core.gate.verdict import Waiting
from wavegate_server.core.rollout.plan import RolloutView
from wavegate_server.core.sentences import Sentence
from wavegate_shared.states import AssignmentState

__all__ = ["live_requests_missing", "waiting_reason"]

_WAITS = frozenset({"gate.waits_live", "gate.waits_own"})


def live_requests_missing(view: RolloutView) -> Waiting | None:
    """What the wave's devices on probation wait for; None where none has said that it waits."""
    needed = view.policy.probation.requests
    waiting = [
        (device.live_requests, device.deadline)
        for device in view.members(view.wave)
        if device.state is AssignmentState.SWAPPED
        and device.live_requests is not None
        and device.live_requests < needed
    ]
    deadlines = [deadline for _, deadline in waiting if deadline is not None]
    if not waiting or not deadlines:
        return None
    return Waiting(
        devices=len(waiting),
        fewest=min(served for served, _ in waiting),
        requests=needed,
        own=view.policy.probation.idle_after is not None,
        until=f"{min(deadlines):%Y-%m-%d %H:%M:%S}",
    )


def waiting_reason(view: RolloutView, said: Sentence) -> Sentence | None:
    """The rollout's reason between two looks at the telemetry, which may be many minutes apart; None where it stays as it is."""
    if said.code in _WAITS:
        return said if said != view.reason else None
    if Sentence.plain(view.reason).code not in _WAITS:
        return None
    wave = view.waves[view.wave]
    return Sentence("rollout.wave", wave=wave.name, size=wave.size, total=len(view.devices))
