"""The rollout's rules: one pure step from what is known to what is done.

    draft -> scheduled -> running <-> paused -> completed
                             running | paused | completed -> rolling_back -> rolled_back
    draft | scheduled | running | paused -> cancelled
    wave:   pending -> running -> soaking -> passed | failed
    device: scheduled -> published -> accepted -> swapped -> proven
            and failed, timed_out, deferred, skipped, rolled_back

`step` never acts and may be repeated: the same view gives the same transition, and the view after a transition gives the next
one. Progress of a device comes in from outside (`progress`); deadlines run from publish and from accept, and start afresh after
a controller was away. A paused rollout reaches no new device, but still rolls a bad version back: pausing is no way to keep harm.
Operators' actions are `actions`.

Source: docs/adr/0009-a-rollout-is-a-pure-step.md.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from wavegate_server.core.gate import decision as gate_decision
from wavegate_server.core.gate.evidence import Telemetry
from wavegate_server.core.gate.verdict import Verdict
from wavegate_server.core.rollout.gate_inputs import gate_evidence
from wavegate_server.core.rollout.parts import PART
from wavegate_server.core.rollout.plan import DeviceChange, DeviceView, GateRecord, RolloutView, Transition, WaveChange
from wavegate_server.core.rollout.waiting import waiting_reason
from wavegate_server.core.sentences import Sentence
from wavegate_shared.states import AssignmentState, RolloutState, WaveState

__all__ = ["holders", "roll_back", "roll_back_again", "step"]

_AT_WORK = frozenset({AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.SWAPPED})
_UNSETTLED = _AT_WORK | {AssignmentState.SCHEDULED}
_NAMED = 3
_TOOK_IT = frozenset({AssignmentState.ACCEPTED, AssignmentState.SWAPPED, AssignmentState.PROVEN})


def step(view: RolloutView, telemetry: Telemetry | None, now: datetime) -> Transition:
    """What to do next.

    Args:
        view: the rollout as stored.
        telemetry: the current wave's evidence, or None when no new block was complete; a wave is only ever promoted
            on a step that has it.
        now: aware UTC.
    """
    if view.state is RolloutState.SCHEDULED:
        return _start(view, now)
    if view.state in (RolloutState.RUNNING, RolloutState.PAUSED):
        return _advance(view, telemetry, now)
    if view.state is RolloutState.ROLLING_BACK:
        return _finish_rollback(view, now)
    return Transition()


def roll_back(view: RolloutView, reason: Sentence, now: datetime) -> Transition:
    """Take the version back wherever it runs among the rollout's devices; devices not reached yet are left alone.

    A device that never accepted is not waited for, and one that refused keeps its state; both get the order, because the
    stored assignment is what a device is answered with for ever. Where no device that has the version can go back, the
    rollout is cancelled: it cannot become `rolled_back`.
    """
    changes, restore = _ways_back(view, view.devices, now)
    having = {device.device for device in holders(view)}
    if having and not having & set(restore):
        keeps = Sentence("rollout.keeps", cause=reason, who=_some(sorted(having)), version=view.version)
        state, said = RolloutState.CANCELLED, keeps
    else:
        state, said = RolloutState.ROLLING_BACK, reason
    current = view.waves[view.wave]
    under_way = current.state in (WaveState.RUNNING, WaveState.SOAKING)
    return Transition(
        state=state,
        reason=said,
        waves=(WaveChange(current.number, WaveState.FAILED),) if under_way else (),
        devices=tuple(changes),
        restore=tuple(restore),
        deny=True,
        action=f"rollout.{state.value}",
        sentence=said,
    )


def _ways_back(view: RolloutView, devices: Sequence[DeviceView], now: datetime) -> tuple[list[DeviceChange], list[str]]:
    """What becomes of each of these devices in a rollback, and which get an order."""
    changes: list[DeviceChange] = []
    restore: list[str] = []
    deadline = now + timedelta(seconds=view.policy.rollback_deadline_s)
    for device in devices:
        if _has_it(view, device):
            changes.append(_back_change(view, device, deadline))
            if device.back:
                restore.append(device.device)
        elif device.state is AssignmentState.SCHEDULED:
            changes.append(DeviceChange(device.device, AssignmentState.SKIPPED, reason=Sentence("device.not_reached")))
        elif device.ordered == view.version and device.current and not device.revoked:
            restore.append(device.device)
            changes.append(_withdrawal(device))
    return changes, restore


def roll_back_again(view: RolloutView, now: datetime) -> Transition:
    """Order back what did not go back, or could not until now; empty when every device is on its way."""
    deadline = now + timedelta(seconds=view.policy.rollback_deadline_s)
    again = [
        device
        for device in holders(view)
        if device.back and (not device.rollback_seq or device.state is AssignmentState.FAILED)
    ]
    if not again:
        return Transition()
    return Transition(
        devices=tuple(_back_change(view, device, deadline) for device in again),
        restore=tuple(device.device for device in again),
        action="rollout.rolling_back",
        sentence=Sentence("rollout.again", count=len(again)),
    )


def holders(view: RolloutView) -> list[DeviceView]:
    """The devices that run the version, may run it, or are ordered to by a later rollout; without revoked ones."""
    return [device for device in view.devices if _has_it(view, device)]


def _has_it(view: RolloutView, device: DeviceView) -> bool:
    if device.revoked or device.state is AssignmentState.ROLLED_BACK:
        return False
    if device.runs == view.version:
        return True
    if not device.current:
        return device.ordered == view.version
    return (device.ordered == view.version or device.rollback_seq > 0) and _may_run_it(device)


def _some(names: Sequence[str]) -> Sentence:
    more = len(names) - _NAMED
    return Sentence("list.more", names=names[:_NAMED], more=more) if more > 0 else Sentence("list.all", names=names)


def _withdrawal(device: DeviceView) -> DeviceChange:
    if device.state is AssignmentState.FAILED:
        return DeviceChange(device.device, reason=device.reason)
    return DeviceChange(device.device, AssignmentState.SKIPPED, reason=Sentence("device.withdrawn"))


def _back_change(view: RolloutView, device: DeviceView, deadline: datetime) -> DeviceChange:
    """A device that got the version by a later rollout, or did not go back at the first try, counts as running it."""
    state = None if _may_run_it(device) else AssignmentState.PROVEN
    if device.back == 0:
        return DeviceChange(device.device, state, reason=Sentence("device.keeps", version=view.version))
    return DeviceChange(
        device.device, state, reason=Sentence("device.goes_back", version=device.back), deadline=deadline
    )


def _may_run_it(device: DeviceView) -> bool:
    return device.state in _TOOK_IT or (device.state is AssignmentState.TIMED_OUT and device.accepted_at is not None)


def _start(view: RolloutView, now: datetime) -> Transition:
    if view.policy.start_at is not None and now < view.policy.start_at:
        return Transition()
    first = view.waves[0]
    return Transition(
        state=RolloutState.RUNNING,
        wave=0,
        reason=Sentence("rollout.wave", wave=first.name, size=first.size, total=len(view.devices)),
        waves=(WaveChange(0, WaveState.RUNNING),),
        publish=_reachable(view, view.members(0)),
        action="rollout.started",
        sentence=Sentence("rollout.started", version=view.version, model=view.model, wave=first.name),
    )


def _advance(view: RolloutView, telemetry: Telemetry | None, now: datetime) -> Transition:
    late = (*_gone(view), *_timed_out(view, now))
    if len(late) > PART:  # first the rows that came to an end, a part at a time; then the gate
        return Transition(devices=late[:PART])
    view = _with(view, late)
    evidence = gate_evidence(view, telemetry, now)
    decision = gate_decision.decide(evidence)
    if decision.verdict is Verdict.ROLLBACK:
        back = roll_back(view, decision.reason, now)
        merged = {change.device: change for change in (*late, *back.devices)}
        return replace(back, devices=tuple(merged.values()), gate=GateRecord(view.wave, evidence, decision, final=True))
    held = None if telemetry is None else GateRecord(view.wave, evidence, decision, final=False)
    base = Transition(devices=late, gate=held)
    if view.state is RolloutState.PAUSED:
        return replace(base, waves=_settle(view))
    if decision.verdict is Verdict.PROMOTE and held is not None:
        return replace(_pass(view, decision.reason), devices=late, gate=replace(held, final=True))
    members = view.members(view.wave)
    publish = _reachable(view, members)
    reason = decision.reason if held is not None else waiting_reason(view, decision.reason)
    return replace(base, publish=publish, waves=() if publish else _settle(view), reason=reason)


def _pass(view: RolloutView, sentence: Sentence) -> Transition:
    done = WaveChange(view.wave, WaveState.PASSED)
    if view.wave + 1 < len(view.waves):
        following = view.waves[view.wave + 1]
        return Transition(
            wave=following.number,
            reason=Sentence(
                "rollout.next_wave",
                sentence=sentence,
                wave=following.name,
                size=following.size,
                total=len(view.devices),
            ),
            waves=(done, WaveChange(following.number, WaveState.RUNNING)),
            publish=_reachable(view, view.members(following.number)),
            action="rollout.wave_passed",
            sentence=Sentence("rollout.wave_passed", wave=view.waves[view.wave].name, sentence=sentence),
        )
    return Transition(
        state=RolloutState.COMPLETED,
        reason=_summary(view),
        waves=(done,),
        action="rollout.completed",
        sentence=Sentence("rollout.wave_passed", wave=view.waves[view.wave].name, sentence=sentence),
    )


def _summary(view: RolloutView) -> Sentence:
    counts = Counter(device.state for device in view.devices)
    rest = [
        Sentence("rollout.count", count=counts[state], state=state.value)
        for state in AssignmentState
        if counts[state] and state is not AssignmentState.PROVEN
    ]
    numbers = {"proven": counts[AssignmentState.PROVEN], "total": len(view.devices)}
    return Sentence("rollout.proven_rest", rest=rest, **numbers) if rest else Sentence("rollout.proven", **numbers)


def _settle(view: RolloutView) -> tuple[WaveChange, ...]:
    """The soak begins once every device of the wave has come to an end, good or bad."""
    wave = view.waves[view.wave]
    waiting = any(device.state in _UNSETTLED for device in view.members(view.wave))
    return () if waiting or wave.state is not WaveState.RUNNING else (WaveChange(wave.number, WaveState.SOAKING),)


def _reachable(view: RolloutView, members: Iterable[DeviceView]) -> tuple[str, ...]:
    members = list(members)
    waiting = [d.device for d in members if d.state is AssignmentState.SCHEDULED and not d.revoked]
    limit = view.policy.max_in_flight
    if not limit:
        return tuple(waiting)
    busy = sum(device.state in _AT_WORK for device in members)
    return tuple(waiting[: max(0, limit - busy)])


def _gone(view: RolloutView) -> tuple[DeviceChange, ...]:
    """Devices that were revoked or deleted under way are not waited for, and not counted."""
    reason = Sentence("device.left")
    left = [device.device for device in view.devices if device.revoked and device.state in _UNSETTLED]
    return tuple(DeviceChange(device, AssignmentState.SKIPPED, reason=reason) for device in left)


def _timed_out(view: RolloutView, now: datetime) -> tuple[DeviceChange, ...]:
    grace = view.since + timedelta(seconds=view.policy.grace_s)
    changes = []
    for device in view.devices:
        if device.revoked:
            continue
        if device.state in _AT_WORK and device.deadline is not None and now >= max(device.deadline, grace):
            absent = device.state is AssignmentState.PUBLISHED
            reason = Sentence("device.no_answer" if absent else "device.not_proven")
            changes.append(DeviceChange(device.device, AssignmentState.TIMED_OUT, reason=reason))
    return tuple(changes)


def _with(view: RolloutView, changes: tuple[DeviceChange, ...]) -> RolloutView:
    found = {change.device: change for change in changes}
    if not found:
        return view
    devices = tuple(
        replace(device, state=found[device.device].state or device.state, reason=found[device.device].reason)
        if device.device in found
        else device
        for device in view.devices
    )
    return replace(view, devices=devices)


def _finish_rollback(view: RolloutView, now: datetime) -> Transition:
    """`rolled_back` once no device has the version; until then the reason names those that do not come by themselves.

    Before that, the devices are told to go back whose part in the rollback is not written yet.
    """
    changes, restore = _ways_back(view, [device for device in view.devices if device.undecided], now)
    if changes or restore:
        return Transition(devices=tuple(changes), restore=tuple(restore))
    waiting = [device for device in holders(view) if not _never_had_it(view, device, now)]
    back = sum(device.state is AssignmentState.ROLLED_BACK for device in view.devices)
    progress = Sentence("rollout.back", count=back)
    cause = _cause(view.reason)
    if not waiting:
        return Transition(
            state=RolloutState.ROLLED_BACK,
            reason=Sentence("rollout.rolled_back", cause=cause, progress=progress),
            action="rollout.rolled_back",
            sentence=progress,
        )
    late = [text for text in (_lateness(view, device, now) for device in waiting) if text]
    if not late:
        return Transition()
    reason = Sentence("rollout.rolling_back", cause=cause, progress=progress, waiting=len(waiting), who=_some(late))
    return Transition() if reason == view.reason else Transition(reason=reason)


def _cause(reason: str) -> Sentence:
    """Why a rollback began, without how far it is."""
    known = Sentence.plain(reason)
    cause = known.params["cause"] if known.code == "rollout.rolling_back" else known
    return Sentence.plain(cause)


def _lateness(view: RolloutView, device: DeviceView, now: datetime) -> Sentence | None:
    if not device.back:
        return Sentence("late.no_way", device=device.device)
    if device.state is AssignmentState.FAILED:
        return Sentence("late.failed", device=device.device, code=device.code or "failed")
    if not device.rollback_seq:
        return Sentence("late.can", device=device.device)
    if not _is_late(view, device, now):
        return None
    if not _is_silent(view, device, now):
        return Sentence("late.late", device=device.device)
    if device.last_seen is None:
        return Sentence("late.never_seen", device=device.device)
    return Sentence("late.offline", device=device.device, seen=f"{device.last_seen:%Y-%m-%d %H:%M} UTC")


def _is_late(view: RolloutView, device: DeviceView, now: datetime) -> bool:
    grace = view.since + timedelta(seconds=view.policy.grace_s)
    return device.deadline is None or now >= max(device.deadline, grace)


def _is_silent(view: RolloutView, device: DeviceView, now: datetime) -> bool:
    return device.last_seen is None or device.last_seen < now - timedelta(seconds=view.policy.heartbeat_s)


def _never_had_it(view: RolloutView, device: DeviceView, now: datetime) -> bool:
    """It accepted, did not say that it swapped, is online past the deadline and says that it runs another version."""
    other = device.runs != view.version and device.swapped_at is None and device.rollback_seq > 0
    return other and _is_late(view, device, now) and not _is_silent(view, device, now)
