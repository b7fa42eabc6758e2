"""The watch after a rollout: devices that proved a version without live traffic are judged on their first live requests.

How to think of this: own requests say that a version answers, not that its answers are good. So the wave's question stays open on the
devices that were idle, for `watch_s` after the rollout is completed. The same limits and the same test answer it; an alarm opens the
rollout again as a rollback. Silence is no alarm here: a device may be switched off after its rollout.

Not here: the rules while a rollout runs (`step`), which rollouts are watched until when (`adapters/store/rollouts`).
"""

from dataclasses import replace
from datetime import datetime, timedelta

import msgspec

from wavegate_server.core.gate import decision as gate_decision
from wavegate_server.core.gate.evidence import Telemetry
from wavegate_server.core.gate.verdict import Guards, Verdict
from wavegate_server.core.rollout.gate_inputs import gate_evidence
from wavegate_server.core.rollout.plan import DeviceView, GateRecord, RolloutView, Transition
from wavegate_server.core.rollout.step import roll_back
from wavegate_shared.states import AssignmentState, RolloutState

__all__ = ["idle_part", "step_after", "watch_until"]


def watch_until(view: RolloutView, now: datetime) -> datetime | None:
    """Until when a rollout that is completed now is watched; None where every device had its live requests."""
    if not view.policy.watch_s or not any(_was_idle(view, device) for device in view.devices):
        return None
    return now + timedelta(seconds=view.policy.watch_s)


def idle_part(view: RolloutView) -> RolloutView:
    """The rollout as if its last wave were the devices to watch: those still on the version that had too few live requests."""
    devices = [
        replace(device, wave=view.wave)
        for device in view.devices
        if _was_idle(view, device) and device.current and device.runs == view.version and not device.revoked
    ]
    return replace(view, devices=tuple(devices))


def step_after(view: RolloutView, telemetry: Telemetry | None, now: datetime) -> Transition:
    """What to do about a completed rollout; nothing, unless the evidence of its idle part is an alarm.

    Args:
        view: the whole rollout.
        telemetry: of `idle_part(view)`, or None when no new block was complete.
        now: aware UTC.
    """
    part = idle_part(view)
    if view.state is not RolloutState.COMPLETED or telemetry is None or not part.devices:
        return Transition()
    found = gate_evidence(part, telemetry, now)
    evidence = msgspec.structs.replace(
        found,
        soak_over=False,
        approved_by="",
        rules=msgspec.structs.replace(found.rules, comparisons=view.metrics * (len(view.waves) + 1)),
        guards=Guards(size=len(part.devices), budget=0, touched=len(part.devices)),
    )
    decision = gate_decision.decide(evidence)
    if decision.verdict is not Verdict.ROLLBACK:
        return Transition()
    record = GateRecord(view.wave, evidence, decision, final=True)
    return replace(roll_back(view, decision.reason, now), gate=record)


def _was_idle(view: RolloutView, device: DeviceView) -> bool:
    """Whether it proved the version with fewer live requests than the policy wants."""
    served = device.live_requests
    return device.state is AssignmentState.PROVEN and served is not None and served < view.policy.probation.requests
