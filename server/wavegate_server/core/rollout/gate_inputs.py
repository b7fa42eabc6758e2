"""What the gate is asked about the current wave of a rollout: rules, guards, whether the soak is over. Not here: telemetry (the store)."""

from datetime import datetime, timedelta

from wavegate_server.core.gate.evidence import Telemetry
from wavegate_server.core.gate.verdict import Failure, GateEvidence, Guards, Rules
from wavegate_server.core.rollout.plan import DeviceView, RolloutView
from wavegate_server.core.rollout.waiting import live_requests_missing
from wavegate_shared.states import AssignmentState, WaveState

__all__ = ["gate_evidence", "left", "soak_over"]


def left(device: DeviceView) -> bool:
    """Whether it left the fleet before it came to an end in this rollout: nothing is counted of it any more."""
    return device.revoked and device.state not in (AssignmentState.FAILED, AssignmentState.PROVEN)


def soak_over(view: RolloutView, now: datetime) -> bool:
    """Whether the current wave was watched for the whole soak, and this controller has been there long enough to know."""
    wave = view.waves[view.wave]
    if wave.state is not WaveState.SOAKING or wave.soak_started_at is None:
        return False
    policy = view.policy
    settled_in = view.since + timedelta(seconds=min(policy.grace_s, policy.soak_s))
    return now >= max(wave.soak_started_at + timedelta(seconds=policy.soak_s), settled_in)


def gate_evidence(view: RolloutView, telemetry: Telemetry | None, now: datetime) -> GateEvidence:
    """The gate's inputs for the current wave."""
    policy, wave = view.policy, view.waves[view.wave]
    updated = [device for device in view.members(view.wave) if device.swapped_at is not None and not left(device)]
    return GateEvidence(
        rollout=view.id,
        model=view.model,
        version=view.version,
        wave=wave.name,
        soak_over=soak_over(view, now),
        first_install=bool(updated) and all(device.previous_version == 0 for device in updated),
        approved_by=wave.approved_by,
        rules=Rules(
            alpha=policy.alpha,
            comparisons=view.metrics * len(view.waves),
            min_blocks=policy.min_blocks,
            few_canaries=policy.few_canaries,
            wide_factor=policy.wide_factor,
            at_soak_end=policy.at_soak_end,
            required_metrics=list(policy.required_metrics),
            idle_wave=policy.idle_wave,
            slo=view.slo,
            judged_before=view.late,
        ),
        guards=_guards(view, now),
        telemetry=telemetry,
        soak_ends=wave.soak_ends(policy.soak_s),
        waiting=live_requests_missing(view),
    )


def _guards(view: RolloutView, now: datetime) -> Guards:
    begun = [wave for wave in view.waves if wave.state is not WaveState.PENDING]
    silence = timedelta(seconds=view.policy.heartbeat_s)
    listening = now >= view.since + max(silence, timedelta(seconds=view.policy.grace_s))

    def silent(device: DeviceView) -> bool:
        return listening and (device.last_seen is None or device.last_seen < now - silence)

    updated = [d for d in view.devices if d.swapped_at and d.state in (AssignmentState.SWAPPED, AssignmentState.PROVEN)]
    updated = [device for device in updated if not device.revoked]
    controls = [device for device in view.devices if device.state is AssignmentState.SCHEDULED]
    sizes = [sum(not left(device) for device in view.members(wave.number)) for wave in begun]
    return Guards(
        size=sum(sizes),
        budget=sum(view.policy.failure_budget(size) for size in sizes),
        failed=[_failure(device) for device in view.devices if _has_failed(device) and not left(device)],
        touched=len(updated),
        silent=[device.device for device in updated if silent(device)],
        controls=len(controls),
        silent_controls=sum(silent(device) for device in controls),
    )


def _has_failed(device: DeviceView) -> bool:
    """A deferral and an absence are no failure; taking the order and not getting through is."""
    timed_out = device.state is AssignmentState.TIMED_OUT and device.accepted_at is not None
    return device.state is AssignmentState.FAILED or timed_out


def _failure(device: DeviceView) -> Failure:
    return Failure(device.device, device.code or device.state.value, str(device.reason))
