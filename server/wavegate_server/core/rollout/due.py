"""When a rollout has to be looked at again, should nobody say anything: the next time at which the clock alone changes a decision.

How to think of this: a look costs a read of all its devices, and nearly all looks of a quiet rollout would find what the last one
found. Words of devices and decisions of people raise a mark on the rollout (`touched`, `revision`); everything else that a
step depends on is a time. So the engine looks when a mark has moved or the time named here has come.

`next_look` may be early, never late: `tests/server/core/rollout/test_due.py` walks rollouts second by second and asks that no step
before it gives anything. What neither a mark nor a time tells (a version denied elsewhere) is found by a look now and then.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from wavegate_server.core.rollout.plan import DeviceView, RolloutView
from wavegate_shared.states import AssignmentState, RolloutState, WaveState

__all__ = ["complete_until", "next_look"]

_SELDOM = timedelta(seconds=60)
_OFTEN = timedelta(seconds=30)
"""While a device that got the version is silent, or devices go back: they come back without a word about the rollout."""
_AT_WORK = frozenset({AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.SWAPPED})
_HAVE_IT = frozenset({AssignmentState.SWAPPED, AssignmentState.PROVEN})


def complete_until(view: RolloutView, now: datetime) -> int:
    """The gate's first block that is not complete yet; what lies before it can be judged."""
    return int((now - timedelta(seconds=view.policy.settle_s)).timestamp() // view.policy.block_s)


def next_look(view: RolloutView, now: datetime) -> datetime:
    """The earliest time after `now` at which a step could give something although nothing was said.

    Args:
        view: the rollout, of which a step at `now` gave nothing.
        now: aware UTC.
    """
    times = [time for time in _times(view, now) if time > now]
    return min(times)


def _times(view: RolloutView, now: datetime) -> Iterator[datetime]:
    yield now + _SELDOM
    policy = view.policy
    if view.state is RolloutState.SCHEDULED:
        if policy.start_at is not None:
            yield policy.start_at
        return
    grace = view.since + timedelta(seconds=policy.grace_s)
    silence = timedelta(seconds=policy.heartbeat_s)
    yield _next_block(view, now)
    yield grace
    yield view.since + max(silence, timedelta(seconds=policy.grace_s))
    wave = view.waves[view.wave]
    if wave.state is WaveState.SOAKING and wave.soak_started_at is not None:
        yield wave.soak_started_at + timedelta(seconds=policy.soak_s)
        yield view.since + timedelta(seconds=min(policy.grace_s, policy.soak_s))
    back = view.state is RolloutState.ROLLING_BACK
    if back:
        yield now + _OFTEN
    for device in view.devices:
        if device.deadline is not None and (back or device.state in _AT_WORK):
            yield max(device.deadline, grace)
        if device.last_seen is not None and (back or _is_listened_to(device)):
            yield device.last_seen + silence + timedelta(microseconds=1)
            if device.state in _HAVE_IT and device.last_seen < now - silence:
                yield now + _OFTEN


def _is_listened_to(device: DeviceView) -> bool:
    return device.state in _HAVE_IT or device.state is AssignmentState.SCHEDULED


def _next_block(view: RolloutView, now: datetime) -> datetime:
    end = (complete_until(view, now) + 1) * view.policy.block_s + view.policy.settle_s
    return datetime.fromtimestamp(end, UTC)
