"""The operator's changes to the register of devices: a new one, other labels, another site.

Not here: enrolment and revocation (`enrolment`), what devices say themselves (`adapters/store/device_messages`), reading (`reads`).
"""

from collections.abc import Mapping
from datetime import datetime

from sqlmodel import Session, col, select

from wavegate_server.adapters.database.tables import Device, DeviceSlot, Rollout, RolloutDevice, Version
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.assignments import AssignmentDraft, AssignmentWriter
from wavegate_server.adapters.trust.authority import is_reserved
from wavegate_server.core.rollout.plan import UNFINISHED
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import MODEL_NAME
from wavegate_shared.topics import DEVICE_ID, shard_of

__all__ = ["change_device", "create_device", "get_device", "hand_over", "remove_model"]


def get_device(session: Session, device_id: str) -> Device:
    """The device's row. Raises UsageError `not_found`."""
    device = session.get(Device, device_id)
    if device is None:
        raise UsageError("not_found", f"no device {device_id!r}")
    return device


def create_device(
    session: Session,
    device_id: str,
    *,
    hardware_class: str,
    site: str,
    labels: Mapping[str, str],
    bench: bool,
    actor: str,
    now: datetime,
) -> Device:
    """Register a device; it is `pending` until it enrols.

    Raises:
        UsageError: `invalid` for an id that cannot be a certificate's name and a topic level; `conflict` when it is taken.
    """
    if DEVICE_ID.fullmatch(device_id) is None:
        raise UsageError(
            "invalid", f"device id {device_id!r}: 1 to 63 of A-Z a-z 0-9 _ . - and it starts with one of A-Z a-z 0-9"
        )
    if is_reserved(device_id):
        raise UsageError("invalid", f"{device_id!r} is the name of a part of the server")
    if session.get(Device, device_id) is not None:
        raise UsageError("conflict", f"device {device_id!r} is registered already")
    _check_bench(hardware_class, bench=bench)
    device = Device(
        id=device_id,
        hardware_class=hardware_class,
        site=site,
        groups={"labels": dict(labels)},
        shard=shard_of(device_id),
        bench=bench,
        created_at=now,
    )
    session.add(device)
    detail = {"class": hardware_class, "site": site, "bench": bench}
    audit.append(session, actor=actor, action="device.create", subject=f"device/{device_id}", now=now, detail=detail)
    return device


def change_device(
    session: Session,
    device: Device,
    *,
    site: str | None,
    labels: Mapping[str, str | None] | None,
    actor: str,
    now: datetime,
    bench: bool | None = None,
) -> Device:
    """Move a device to another site or change labels: a label set to None goes, labels not named stay.

    `bench` reaches the device when it enrols anew; taken away, the server asks nothing more of it at once.

    Raises:
        UsageError: `invalid` for a hardware class that no bench role can be named after.
    """
    if bench is not None:
        _check_bench(device.hardware_class, bench=bench)
        device.bench = bench
    if site is not None:
        device.site = site
    if labels is not None:
        merged = {**device.groups.get("labels", {}), **labels}
        device.groups = {**device.groups, "labels": {key: value for key, value in merged.items() if value is not None}}
    device.revision += 1
    session.add(device)
    detail = {"site": site, "labels": dict(labels) if labels is not None else None, "bench": bench}
    audit.append(session, actor=actor, action="device.change", subject=f"device/{device.id}", now=now, detail=detail)
    return device


def remove_model(
    session: Session,
    assignments: AssignmentWriter,
    device_id: str,
    model: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Have a model taken away from a device; one that is being taken away already is left at that.

    Args:
        session: of a write transaction.
        assignments: signs what the device is told.
        device_id: which device.
        model: which of its models.
        actor: who, for the audit log.
        reason: why, for people; may be empty.
        now: aware UTC.

    Raises:
        UsageError: `not_found` for the device or a model it neither serves nor is assigned; `conflict` while an unfinished
            rollout of the model has the device, or when the device is not active.
    """
    device = get_device(session, device_id)
    slot = session.get(DeviceSlot, (device_id, model))
    if slot is None:
        raise UsageError("not_found", f"device {device_id} has no model {model!r}")
    if slot.removed:
        return
    if device.state != "active":
        raise UsageError("conflict", f"device {device_id} is {device.state}, not active")
    rolling = (
        select(Rollout.id)
        .join(RolloutDevice, col(RolloutDevice.rollout_id) == Rollout.id)
        .where(RolloutDevice.device_id == device_id, Rollout.model == model)
        .where(col(Rollout.state).in_([state.value for state in UNFINISHED]))
    )
    busy = session.exec(rolling).first()
    if busy is not None:
        raise UsageError("conflict", Sentence("refused.busy", device=device_id, rollout=busy))
    with assignments.batch(session, now) as batch:
        batch.remove(device_id, model, reason=reason[:400])
    detail = {"model": model, "version": slot.version, "reason": reason}
    audit.append(
        session, actor=actor, action="device.remove_model", subject=f"device/{device_id}", now=now, detail=detail
    )


def hand_over(
    session: Session, assignments: AssignmentWriter, old: Device, new_id: str, *, actor: str, now: datetime
) -> Device:
    """Register new hardware in the place of a device: its class, site, labels, benching, and what it runs.

    The new device gets its assignment when it first says hello. The old one is not touched: the caller revokes it.

    Raises:
        UsageError: as `create_device`; `conflict` when the old one is revoked already.
    """
    if old.state == "revoked":
        raise UsageError("conflict", f"device {old.id} is revoked; register the new one by itself")
    new = create_device(
        session,
        new_id,
        hardware_class=old.hardware_class,
        site=old.site,
        labels=old.groups.get("labels", {}),
        bench=old.bench,
        actor=actor,
        now=now,
    )
    session.flush()
    with assignments.batch(session, now) as batch:
        for model, number in _desired(session, old.id).items():
            version = session.exec(select(Version).where(Version.model == model, Version.number == number)).first()
            if version is not None and version.state == "published":
                draft = AssignmentDraft(version, model, rollout=None, wave=None, reason=f"in the place of {old.id}")
                batch.give(new_id, draft)
    detail = {"new": new_id}
    audit.append(session, actor=actor, action="device.replace", subject=f"device/{old.id}", now=now, detail=detail)
    return new


def _desired(session: Session, device_id: str) -> dict[str, int]:
    """Model -> version it proved, or was assigned where it has run none of the model yet."""
    rows = session.exec(select(DeviceSlot).where(DeviceSlot.device_id == device_id))
    return {row.model: row.version or row.assigned_version for row in rows if not row.removed}


def _check_bench(hardware_class: str, *, bench: bool) -> None:
    if bench and MODEL_NAME.fullmatch(hardware_class) is None:
        raise UsageError(
            "invalid", f"class {hardware_class!r} cannot name a role that signs candidates: a-z, 0-9 and - only"
        )
