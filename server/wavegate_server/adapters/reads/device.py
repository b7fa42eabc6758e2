"""Reading one device: its page, its event log, its versions, and why it runs what it runs.

Not here: charts (`reads_series`), the table of all devices (`reads_fleet`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlmodel import Session

from wavegate_server.adapters.reads.device_slots import SlotRow, shown, slot_rows
from wavegate_server.adapters.reads.fleet import DeviceRow, device_row
from wavegate_server.adapters.reads.fleet_defaults import defaults_for
from wavegate_server.adapters.reads.page import MAX_LIMIT, Page, columns, cursor_text, cursor_value, rows
from wavegate_server.adapters.reads.rollouts import said_by_gate
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = [
    "DeviceDetail",
    "DeviceWhy",
    "EventRow",
    "HistoryRow",
    "SlotRow",
    "WhyStep",
    "device_detail",
    "device_events",
    "device_history",
    "device_why",
]


@dataclass(frozen=True, slots=True)
class DeviceDetail:
    """The head of a device's page: of one of its models, and of the device.

    `bytes_fetched` and `requests_served` are over all its models; `assigned_version` is of the model that `row` shows,
    `assigned_seq` the newest assignment of the device. `facts` are what it said of itself.
    """

    row: DeviceRow
    slots: tuple[SlotRow, ...]
    facts: dict[str, Any]
    quarantined: tuple[str, ...]
    labels: dict[str, str]
    created_at: datetime | None
    enrolled_at: datetime | None
    certificate_expires: datetime | None
    cloned: str
    bytes_fetched: int
    requests_served: int
    assignment_seq: int
    assigned_version: int
    assigned_seq: int
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of the event log."""

    id: int
    at: datetime
    kind: str
    slot: str
    model: str
    version: int
    state: str
    code: str | None
    detail: str
    assignment_seq: int


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """How one assignment ended, by the device's signed report. Ratios are candidate / active on that device."""

    at: datetime
    assignment_seq: int
    rollout: str | None
    model: str
    version: int
    active_version: int
    outcome: str
    code: str | None
    bytes_fetched: int
    served: int
    self_requests: int
    golden_value: float | None
    golden_limit: float | None
    cpu_ratio: float | None
    p99_ms: float | None
    swap_ms: float | None


@dataclass(frozen=True, slots=True)
class WhyStep:
    """One reason in the chain, newest first.

    Attributes:
        at: when it happened; None where no time belongs to it.
        code: stable name; the dashboard's catalogue has `why.<code>`.
        values: what the sentence's places are filled with.
        sentence: the same in English, for the API and the command line.
        rollout: the rollout it belongs to.
        said: the sentence among the values as a code with parameters (`core.sentences`); empty where there is none.
    """

    at: datetime | None
    code: str
    sentence: str
    values: dict[str, str] = field(default_factory=dict)
    rollout: str | None = None
    said: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceWhy:
    """Why a device runs the version it runs."""

    device: str
    model: str
    version: int
    steps: tuple[WhyStep, ...]


SENTENCES: dict[str, str] = {
    "nothing": "No version was ever assigned to this device.",
    "running": "It runs {model} v{version}.",
    "assigned": "The newest assignment (number {seq}) names {model} v{version}, by rollout {rollout}, wave {wave}.",
    "assigned_directly": "The newest assignment (number {seq}) names {model} v{version}; it belongs to no rollout.",
    "unacknowledged": "The device has not acknowledged that assignment yet.",
    "proven": "It proved v{version}: golden set passed and {served} live requests served.",
    "proven_own": "It proved v{version}: golden set passed, {served} live requests served, and {own} of its own, because live ones did not come.",
    "proven_again": "It is back on v{version}, which had proved itself here before on {served} live requests; golden set passed.",
    "refused": "It refused v{version} before the swap ({code}: {detail}) and went on serving v{active}.",
    "reverted": "It went back from v{version} to v{active} by itself ({code}: {detail}).",
    "removal": "The newest assignment (number {seq}) takes {model} away from this device.",
    "removed": "It took {model} away.",
    "deferred": "It put v{version} off ({code}: {detail}).",
    "default_waits": "The fleet default for {devices} is {model} v{version}; it gets that when it is online and no rollout of the model has it.",
    "default_tried": "The fleet default for {devices}, {model} v{version}, is not given again: rollout {rollout} had this device since it was set.",
    "benched": "It measured v{version} as a candidate beside its original; that changed nothing.",
    "broken": "No version could serve after v{version} was tried ({code}: {detail}).",
    "gate": "The gate after wave {wave} said {verdict}: {sentence}",
    "rollout": "Rollout {rollout} is {state}: {sentence}",
}
"""English text of every `WhyStep.code`."""


def device_detail(session: Session, now: datetime, device_id: str, model: str | None = None) -> DeviceDetail:
    """Everything the head of a device's page shows; figures are of `model`, or of the one that stands for the device.

    Raises:
        UsageError: `not_found`.
    """
    row = _device(session, device_id)
    report, assignment = columns("device_report"), columns("device_assignment")
    fetched = rows(session, select(func.sum(report.bytes_fetched)).where(report.device_id == device_id))[0][0]
    rollup = columns("device_rollup")
    served = select(func.sum(rollup.requests)).where(rollup.device_id == device_id, rollup.level == 86400)
    newest = rows(session, select(assignment.device_id.table).where(assignment.device_id == device_id))
    line = device_row(session, now, device_id, model)
    return DeviceDetail(
        row=line,
        slots=line.slots,
        facts=dict(row.facts or {}),
        quarantined=tuple((row.quarantined or {}).get("digests") or ()),
        labels={str(k): str(v) for k, v in ((row.groups or {}).get("labels") or {}).items()},
        created_at=row.created_at,
        enrolled_at=row.enrolled_at,
        certificate_expires=row.certificate_expires,
        cloned=row.cloned,
        bytes_fetched=int(fetched or 0),
        requests_served=int(rows(session, served)[0][0] or 0),
        assignment_seq=row.assignment_seq,
        assigned_version=shown(line.slots, model or line.model or None).assigned_version,
        assigned_seq=newest[0].seq if newest else 0,
        acknowledged=bool(newest and newest[0].acknowledged),
    )


def device_events(session: Session, device_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[EventRow]:
    """The device's event log, newest first.

    Raises:
        UsageError: `invalid`, for a cursor that is not ours.
    """
    event = columns("device_event")
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(event.id.table).where(event.device_id == device_id).order_by(event.id.desc()).limit(limit + 1)
    if cursor:
        query = query.where(event.id < _number(cursor))
    found = rows(session, query)
    items = tuple(
        EventRow(r.id, r.at, r.kind, r.slot, r.model, r.version, r.state, r.code, r.detail, r.assignment_seq)
        for r in found[:limit]
    )
    return Page(items, cursor_text(items[-1].id) if len(found) > limit else None)


def device_history(
    session: Session, device_id: str, *, limit: int = 50, model: str | None = None
) -> tuple[HistoryRow, ...]:
    """How the device's assignments (of one model) ended, newest first, from its signed reports."""
    report = columns("device_report")
    query = (
        select(report.id.table).where(report.device_id == device_id, _about(report, model)).order_by(report.id.desc())
    )
    return tuple(_history_row(row) for row in rows(session, query.limit(limit)))


def device_why(session: Session, device_id: str, model: str | None = None) -> DeviceWhy:
    """The chain of reasons for the version of a model that a device runs: what runs, who assigned it, how it went, what the gate said.

    Args:
        session: an open read.
        device_id: which device.
        model: None: the one that stands for the device.

    Raises:
        UsageError: `not_found`.
    """
    row = _device(session, device_id)
    slots = slot_rows(session, [device_id]).get(device_id, ())
    if model is not None and all(slot.model != model for slot in slots):
        raise UsageError("not_found", f"device {device_id!r} has no model {model!r}")
    running = shown(slots, model)
    steps: list[WhyStep] = []
    if running.version:
        steps.append(_step("running", row.last_seen, model=running.model, version=running.version))
    assignment = columns("device_assignment")
    newest = rows(session, select(assignment.device_id.table).where(assignment.device_id == device_id))
    if newest and running.seq:
        steps += _assignment_steps(running, newest[0])
    history = device_history(session, device_id, limit=3, model=running.model or None)
    bodies = _bodies(session, device_id, 3, running.model or None)
    steps += [
        _report_step(entry, row, _served_before(session, device_id, entry))
        for entry, row in zip(history, bodies, strict=True)
    ]
    if running.rollout_id:
        steps += _rollout_steps(session, running.rollout_id)
    if not steps:
        steps.append(_step("nothing", row.created_at))
    steps += _default_steps(session, row, slots, model)
    return DeviceWhy(device_id, running.model, running.version, tuple(steps))


def _device(session: Session, device_id: str) -> Any:
    device = columns("device")
    found = rows(session, select(device.id.table).where(device.id == device_id))
    if not found:
        raise UsageError("not_found", Sentence("missing.device", name=repr(device_id)))
    return found[0]


def _history_row(row: Any) -> HistoryRow:
    body: dict[str, Any] = row.body or {}
    golden, bench = body.get("golden") or {}, body.get("bench") or {}
    return HistoryRow(
        at=row.received_at,
        assignment_seq=row.assignment_seq,
        rollout=row.rollout_id,
        model=row.model,
        version=row.version,
        active_version=body.get("active_version") or 0,
        outcome=row.outcome,
        code=row.code,
        bytes_fetched=row.bytes_fetched,
        served=row.served,
        self_requests=body.get("self_requests") or 0,
        golden_value=golden.get("value"),
        golden_limit=golden.get("limit"),
        cpu_ratio=bench.get("cpu_ratio"),
        p99_ms=body.get("p99_ms"),
        swap_ms=body.get("swap_ms"),
    )


def _about(report: Any, model: str | None) -> ColumnElement[bool]:
    return true() if model is None else or_(report.model == model, report.model == "")


def _bodies(session: Session, device_id: str, limit: int, model: str | None) -> list[dict[str, Any]]:
    report = columns("device_report")
    query = select(report.body).where(report.device_id == device_id, _about(report, model))
    query = query.order_by(report.id.desc()).limit(limit)
    return [dict(body or {}) for (body,) in rows(session, query)]


def _assignment_steps(slot: SlotRow, newest: Any) -> list[WhyStep]:
    """What the model was assigned; the time is known while no assignment of another model came after it."""
    at = newest.issued_at if newest.seq == slot.seq else None
    places = {"seq": slot.seq, "model": slot.model, "version": slot.assigned_version}
    if slot.removed:
        first = _step("removal", at, **places)
    elif slot.rollout_id:
        first = _step("assigned", at, rollout=slot.rollout_id, wave=_wave(slot.wave), **places)
    else:
        first = _step("assigned_directly", at, **places)
    waits = newest.seq == slot.seq and not newest.acknowledged
    return [first, _step("unacknowledged", None)] if waits else [first]


def _served_before(session: Session, device_id: str, entry: HistoryRow) -> int:
    """Live requests of an earlier proof of the same version, for a report without any: the version came back."""
    if entry.outcome != "proven" or entry.served:
        return 0
    report = columns("device_report")
    query = select(func.max(report.served)).where(
        report.device_id == device_id,
        report.model == entry.model,
        report.version == entry.version,
        report.outcome == "proven",
        report.assignment_seq < entry.assignment_seq,
    )
    return int(rows(session, query)[0][0] or 0)


def _report_step(entry: HistoryRow, body: dict[str, Any], served_before: int) -> WhyStep:
    if served_before:
        return _step("proven_again", entry.at, rollout=entry.rollout or "", version=entry.version, served=served_before)
    own = entry.outcome == "proven" and entry.self_requests
    return _step(
        "proven_own" if own else entry.outcome if entry.outcome in SENTENCES else "deferred",
        entry.at,
        rollout=entry.rollout or "",
        model=entry.model,
        version=entry.version,
        active=entry.active_version,
        served=entry.served,
        own=entry.self_requests,
        code=entry.code or "",
        detail=str(body.get("detail") or ""),
    )


def _default_steps(session: Session, row: Any, slots: Sequence[SlotRow], model: str | None) -> list[WhyStep]:
    """What the fleet defaults have for the device where it runs an older version, or none: of one model, or of all."""
    runs = {slot.model: slot.version for slot in slots}
    steps = []
    for default in defaults_for(session, row).values():
        if model in (None, default.model) and runs.get(default.model, 0) < default.version:
            code = "default_tried" if default.tried_by else "default_waits"
            steps.append(
                _step(
                    code,
                    None,
                    model=default.model,
                    version=default.version,
                    devices=default.devices,
                    rollout=default.tried_by or "",
                )
            )
    return steps


def _rollout_steps(session: Session, rollout_id: str) -> list[WhyStep]:
    gate, rollout = columns("gate_decision"), columns("rollout")
    newest = select(gate.id.table).where(gate.rollout_id == rollout_id, gate.final).order_by(gate.id.desc()).limit(1)
    steps = [
        replace(
            _step("gate", r.at, rollout=rollout_id, wave=_wave(r.wave), verdict=r.verdict, sentence=r.sentence),
            said=said_by_gate(r.evidence),
        )
        for r in rows(session, newest)
    ]
    for row in rows(session, select(rollout.id.table).where(rollout.id == rollout_id)):
        at = row.finished_at or row.started_at or row.created_at
        step = _step("rollout", at, rollout=rollout_id, state=row.state, sentence=row.reason or "-")
        steps.append(replace(step, said=row.said or {}))
    return steps


def _wave(number: int | None) -> int:
    return 1 if number is None else number + 1


def _step(code: str, at: datetime | None, /, **values: object) -> WhyStep:
    places = {name: str(value) for name, value in values.items()}
    return WhyStep(at, code, SENTENCES[code].format_map(places), places, places.get("rollout") or None)


def _number(cursor: str) -> int:
    text = cursor_value(cursor)
    if not text.isdecimal():
        raise UsageError("invalid", "the cursor is not one of ours")
    return int(text)
