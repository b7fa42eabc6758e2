"""Rollouts in the tables: create one.

What would be refused later is refused here, before anything starts. Not here: reading one (`rollout_view`), writing what a step decided
(`rollout_transitions`), the rules (`core/rollout`), reading for pages (`adapters/reads/rollouts`).
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlmodel import Session, col, func, select

from wavegate_server.adapters.database.tables import (
    Device,
    DeviceSlot,
    Rollout,
    RolloutDevice,
    RolloutWave,
    Version,
)
from wavegate_server.adapters.database.tables_telemetry import DeviceRollup
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.device_slots import running_versions
from wavegate_server.adapters.store.rollout_view import touch
from wavegate_server.core.gate.policy import Policy, dump_policy, parse_policy
from wavegate_server.core.rollout.late_joiners import Choice
from wavegate_server.core.rollout.plan import UNFINISHED, RolloutView
from wavegate_server.core.rollout.waves import Candidate, plan_waves
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Manifest, decode_manifest
from wavegate_shared.states import AssignmentState, RolloutState

__all__ = [
    "MAX_MODELS",
    "check_offered",
    "create_rollout",
    "find_version",
]

_BATCH = 500
_DAY_S = 86_400
MAX_MODELS = 8
"""What an agent's journal has room for."""
_NOT_COMING_BACK = [s.value for s in (AssignmentState.ROLLED_BACK, AssignmentState.SKIPPED, AssignmentState.FAILED)]
_UNDER_WAY = frozenset(
    {AssignmentState.SCHEDULED, AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.SWAPPED}
)
_NAMED = 3
"""So many devices are named in a refusal; the rest are counted."""


def create_rollout(
    session: Session,
    *,
    model: str,
    version: int,
    devices: Sequence[str],
    policy: Mapping[str, Any],
    actor: str,
    now: datetime,
    allow_denied: bool = False,
    choice: Choice | None = None,
) -> str:
    """Plan a rollout of a published version to these devices; the engine starts it. Gives its id.

    Devices that run the version already are part of it, skipped. Waves are frozen here. `choice` says which devices these are,
    where it was not single ones: for them a completed rollout leaves a fleet default behind.

    Raises:
        UsageError: `invalid` (policy, no devices, a metric without a margin), `not_found` (version, device), `conflict`
            (not published, denied, older than what a device runs without `downgrade`, a device that is not active, is in another unfinished rollout of the model or has no room for one more).
    """
    parsed = parse_policy(policy)
    found = find_version(session, model, version)
    check_offered(found, allow_denied=allow_denied)
    manifest = decode_manifest(found.manifest)
    if manifest.metric.name not in parsed.margins:
        unit = manifest.metric.unit
        raise UsageError("invalid", f"rollout policy: margins needs {manifest.metric.name!r}, in {unit}")
    members = _members(session, devices)
    names = [device.id for device in members]
    _check_free(session, names, model)
    _check_room(session, names, model)
    running = {name: 0 for name in names} | running_versions(session, names, model)
    _check_order(running, version, model, allowed=bool(parsed.downgrade))
    todo = [device for device in members if running[device.id] != version]
    if not todo:
        raise UsageError("conflict", f"every device runs version {version} of {model} already")
    _take_over_late(session, names, model, now)
    rollout_id = f"r-{secrets.token_hex(4)}"
    seed = parsed.seed or rollout_id
    _add_rows(session, rollout_id, seed, manifest, parsed, members, running, actor, now)
    session.get_one(Rollout, rollout_id).choice = None if choice is None else msgspec.to_builtins(choice)
    audit.append(
        session,
        actor=actor,
        action="rollout.create",
        subject=f"rollout/{rollout_id}",
        now=now,
        detail={"model": model, "version": version, "devices": len(members), "policy": dump_policy(parsed)},
    )
    return rollout_id


def _check_order(running: Mapping[str, int], version: int, model: str, *, allowed: bool) -> None:
    """Devices refuse an older version than they run, unless the assignment allows it: said before anything starts."""
    newer = sorted(name for name, number in running.items() if number > version)
    if newer and not allowed:
        named = ", ".join(newer[:_NAMED]) + (f" and {len(newer) - _NAMED} more" if len(newer) > _NAMED else "")
        runs = max(running[name] for name in newer)
        raise UsageError(
            "conflict",
            f"{named} run a newer version of {model} (up to {runs}) than {version}; --downgrade REASON takes them back",
        )


def find_version(session: Session, model: str, number: int) -> Version:
    """One version. Raises UsageError `not_found`."""
    found = session.exec(select(Version).where(Version.model == model, Version.number == number)).first()
    if found is None:
        raise UsageError("not_found", f"no version {number} of model {model!r}")
    return found


def check_offered(found: Version, *, allow_denied: bool = False) -> None:
    """Raises UsageError `conflict` for a version that is not published, or was rolled back before."""
    name = f"version {found.number} of {found.model}"
    if found.state != "published":
        raise UsageError("conflict", f"{name} is {found.state}; only a published version can be rolled out")
    if found.denied and not allow_denied:
        raise UsageError("conflict", f"{name} was rolled back before; --allow-denied rolls it out all the same")


def _members(session: Session, devices: Sequence[str]) -> list[Device]:
    wanted = sorted(set(devices))
    if not wanted:
        raise UsageError("invalid", "a rollout needs at least one device")
    found: list[Device] = []
    for at in range(0, len(wanted), _BATCH):
        found.extend(session.exec(select(Device).where(col(Device.id).in_(wanted[at : at + _BATCH]))))
    missing = sorted(set(wanted) - {device.id for device in found})
    if missing:
        raise UsageError("not_found", f"no device {missing[0]!r}")
    for device in found:
        if device.state != "active":
            raise UsageError("conflict", f"device {device.id} is {device.state}, not active")
    return sorted(found, key=lambda device: device.id)


def _check_free(session: Session, devices: Sequence[str], model: str, but: str = "") -> None:
    """A device is in one unfinished rollout of a model at a time; other models and late joiners do not matter."""
    states = [state.value for state in UNFINISHED]
    for at in range(0, len(devices), _BATCH):
        query = (
            select(RolloutDevice.device_id, Rollout.id)
            .join(Rollout, col(Rollout.id) == RolloutDevice.rollout_id)
            .where(col(RolloutDevice.device_id).in_(devices[at : at + _BATCH]), col(Rollout.state).in_(states))
            .where(Rollout.id != but, Rollout.model == model, col(Rollout.late).is_(False))
            .where(
                (col(Rollout.state) != RolloutState.ROLLING_BACK.value)
                | ((col(RolloutDevice.rollback_seq) > 0) & col(RolloutDevice.state).not_in(_NOT_COMING_BACK))
            )
        )
        busy = session.exec(query).first()
        if busy is not None:
            raise UsageError("conflict", Sentence("refused.busy", device=busy[0], rollout=busy[1]))


def _take_over_late(session: Session, devices: Sequence[str], model: str, now: datetime) -> None:
    """A rollout that somebody plans goes before the fleet default: its devices end as skipped among the late joiners."""
    late = select(Rollout.id).where(
        col(Rollout.late), Rollout.model == model, col(Rollout.state).in_([state.value for state in UNFINISHED])
    )
    said = Sentence("device.taken_over")
    touch(session, devices)
    for rollout_id in session.exec(late).all():
        for row in session.exec(select(RolloutDevice).where(RolloutDevice.rollout_id == rollout_id)):
            if row.device_id in devices and AssignmentState(row.state) in _UNDER_WAY:
                row.state, row.reason, row.said = AssignmentState.SKIPPED.value, str(said), said.as_json()
                row.finished_at = now
                session.add(row)


def _check_room(session: Session, devices: Sequence[str], model: str) -> None:
    """A device takes `MAX_MODELS` models; one more would be refused by each device."""
    full: list[str] = []
    for at in range(0, len(devices), _BATCH):
        query = (
            select(DeviceSlot.device_id)
            .where(col(DeviceSlot.device_id).in_(devices[at : at + _BATCH]), DeviceSlot.model != model)
            .where((col(DeviceSlot.version) > 0) | col(DeviceSlot.entry).is_not(None))
            .group_by(col(DeviceSlot.device_id))
            .having(func.count() >= MAX_MODELS)
        )
        full.extend(session.exec(query).all())
    if full:
        named = ", ".join(full[:_NAMED]) + (f" and {len(full) - _NAMED} more" if len(full) > _NAMED else "")
        raise UsageError("conflict", f"a device serves {MAX_MODELS} models at most; no room for {model} on {named}")


def check_free(session: Session, view: RolloutView, devices: Sequence[str]) -> None:
    """Raises UsageError `conflict` when one of these devices of a rollout is in another unfinished one of its model by now."""
    _check_free(session, devices, view.model, but=view.id)


def _add_rows(
    session: Session,
    rollout_id: str,
    seed: str,
    manifest: Manifest,
    policy: Policy,
    members: Sequence[Device],
    running: Mapping[str, int],
    actor: str,
    now: datetime,
) -> None:
    live = _live_devices(session, [device.id for device in members], manifest.model, now)
    todo = [
        Candidate(d.id, d.hardware_class, d.site, d.id in live) for d in members if running[d.id] != manifest.version
    ]
    waves = plan_waves(seed, todo, policy.waves)
    wave_of = {device: wave.number for wave in waves for device in wave.devices}
    waits = Sentence("rollout.waits_approval" if policy.require_approval else "rollout.waits_start")
    there_already = Sentence("device.runs_it")
    session.add(
        Rollout(
            id=rollout_id,
            model=manifest.model,
            version=manifest.version,
            state=(RolloutState.DRAFT if policy.require_approval else RolloutState.SCHEDULED).value,
            seed=seed,
            policy=dump_policy(policy),
            reason=str(waits),
            said=waits.as_json(),
            created_at=now,
            created_by=actor,
        )
    )
    for wave in waves:
        session.add(RolloutWave(rollout_id=rollout_id, number=wave.number, name=wave.name, size=len(wave.devices)))
    for device in members:
        there = device.id not in wave_of
        session.add(
            RolloutDevice(
                rollout_id=rollout_id,
                device_id=device.id,
                wave=wave_of.get(device.id, len(waves) - 1),
                previous_version=running[device.id],
                state=(AssignmentState.SKIPPED if there else AssignmentState.SCHEDULED).value,
                reason=str(there_already) if there else "",
                said=there_already.as_json() if there else {},
            )
        )
    session.flush()


def _live_devices(session: Session, devices: Sequence[str], model: str, now: datetime) -> set[str]:
    """Which of these devices served live requests of the model since the beginning of yesterday (UTC)."""
    yesterday = (int(now.timestamp()) // _DAY_S - 1) * _DAY_S
    found: set[str] = set()
    for at in range(0, len(devices), _BATCH):
        query = select(DeviceRollup.device_id).where(
            col(DeviceRollup.device_id).in_(devices[at : at + _BATCH]),
            DeviceRollup.level == _DAY_S,
            DeviceRollup.bucket >= yesterday,
            DeviceRollup.model == model,
            DeviceRollup.requests > 0,
        )
        found.update(session.exec(query))
    return found
