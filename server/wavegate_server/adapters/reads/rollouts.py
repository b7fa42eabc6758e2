"""Reading rollouts: the list, and one rollout with its waves, its devices and every gate decision kept.

Evidence is given back as it was stored (see `core/gate.py`), so that a page shows exactly what the gate saw.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session

from wavegate_server.adapters.reads.page import MAX_LIMIT, Page, columns, cursor_text, cursor_value, rows
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.states import RolloutState

__all__ = [
    "OPEN",
    "GateRow",
    "RolloutDetail",
    "RolloutDeviceRow",
    "RolloutRow",
    "WaveRow",
    "rollout_detail",
    "rollout_rows",
    "said_by_gate",
]


OPEN = (RolloutState.SCHEDULED, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK)
"""States in which something can still happen by itself or by an operator."""


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One line of the rollout list. `devices` counts assignment states; `wave` is the number of the current wave.

    `said` is `reason` as a code with parameters (`core.sentences`); empty where only the text was stored.
    """

    id: str
    model: str
    version: int
    state: str
    wave: int
    waves: int
    reason: str
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    next_at: datetime | None
    revision: int
    devices: dict[str, int] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Devices in the rollout."""
        return sum(self.devices.values())


@dataclass(frozen=True, slots=True)
class RolloutDeviceRow:
    """One device in the rollout. Times are None until that step was reached; `said` is `reason` as code and parameters."""

    device: str
    wave: int
    state: str
    previous_version: int
    attempt: int
    assignment_seq: int
    published_at: datetime | None
    accepted_at: datetime | None
    swapped_at: datetime | None
    finished_at: datetime | None
    deadline: datetime | None
    code: str | None
    reason: str
    hardware_class: str
    site: str
    said: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GateRow:
    """One stored gate decision. `verdict`: promote, hold, rollback; `final`: it was acted on.

    `said` is `sentence` as a code with parameters; empty for a decision of an older release.
    """

    id: int
    wave: int
    at: datetime
    verdict: str
    sentence: str
    final: bool
    evidence: dict[str, Any]
    said: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaveRow:
    """One wave with its devices."""

    number: int
    name: str
    state: str
    size: int
    started_at: datetime | None
    soak_started_at: datetime | None
    finished_at: datetime | None
    approved_by: str = ""
    devices: tuple[RolloutDeviceRow, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutDetail:
    """One rollout whole. `gates` are newest first."""

    row: RolloutRow
    policy: dict[str, Any]
    waves: tuple[WaveRow, ...]
    gates: tuple[GateRow, ...]


def rollout_rows(
    session: Session,
    *,
    model: str | None = None,
    state: str | None = None,
    open_only: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[RolloutRow]:
    """Rollouts, newest first; `open_only` leaves out drafts and what is over.

    Raises:
        UsageError: `invalid`, for a cursor that is not ours.
    """
    rollout = columns("rollout")
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(rollout.id.table).order_by(rollout.created_at.desc(), rollout.id.desc()).limit(limit + 1)
    if model is not None:
        query = query.where(rollout.model == model)
    if state is not None:
        query = query.where(rollout.state == state)
    if open_only:
        query = query.where(rollout.state.in_(OPEN))
    if cursor:
        at, _, name = cursor_value(cursor).partition("|")
        stamp = _stamp(at)
        query = query.where((rollout.created_at < stamp) | ((rollout.created_at == stamp) & (rollout.id < name)))
    found = rows(session, query)
    counts = _counts(session, [row.id for row in found[:limit]])
    items = tuple(_rollout_row(row, *counts[row.id]) for row in found[:limit])
    last = items[-1] if len(found) > limit else None
    return Page(items, cursor_text(f"{last.created_at.isoformat()}|{last.id}") if last else None)


def rollout_detail(session: Session, rollout_id: str, *, gates: int = 50) -> RolloutDetail:
    """One rollout with waves, devices and its newest `gates` decisions.

    Raises:
        UsageError: `not_found`.
    """
    rollout, wave, gate = columns("rollout"), columns("rollout_wave"), columns("gate_decision")
    found = rows(session, select(rollout.id.table).where(rollout.id == rollout_id))
    if not found:
        raise UsageError("not_found", Sentence("missing.rollout", name=repr(rollout_id)))
    members = _members(session, rollout_id)
    waves = select(wave.rollout_id.table).where(wave.rollout_id == rollout_id).order_by(wave.number)
    decided = select(gate.id.table).where(gate.rollout_id == rollout_id).order_by(gate.id.desc()).limit(gates)
    return RolloutDetail(
        row=_rollout_row(found[0], *_counts(session, [rollout_id])[rollout_id]),
        policy=dict(found[0].policy or {}),
        waves=tuple(_wave_row(row, members.get(row.number, ())) for row in rows(session, waves)),
        gates=tuple(
            GateRow(
                r.id, r.wave, r.at, r.verdict, r.sentence, r.final, dict(r.evidence or {}), said_by_gate(r.evidence)
            )
            for r in rows(session, decided)
        ),
    )


def rollout_revision(session: Session, rollout_id: str) -> int:
    """Its revision alone. Raises UsageError `not_found`."""
    rollout = columns("rollout")
    found = rows(session, select(rollout.revision).where(rollout.id == rollout_id))
    if not found:
        raise UsageError("not_found", Sentence("missing.rollout", name=repr(rollout_id)))
    return int(found[0].revision)


def said_by_gate(evidence: dict[str, Any] | None) -> dict[str, Any]:
    """A stored decision's sentence as a code with parameters; empty where it has none."""
    decision = (evidence or {}).get("decision")
    said = decision.get("said") if isinstance(decision, dict) else None
    return said if isinstance(said, dict) else {}


def _counts(session: Session, ids: list[str]) -> dict[str, tuple[int, dict[str, int]]]:
    member, wave = columns("rollout_device"), columns("rollout_wave")
    counts: dict[str, tuple[int, dict[str, int]]] = {name: (0, {}) for name in ids}
    waves = select(wave.rollout_id, func.count()).where(wave.rollout_id.in_(ids)).group_by(wave.rollout_id)
    for name, n in rows(session, waves):
        counts[name] = (n, counts[name][1])
    states = select(member.rollout_id, member.state, func.count()).where(member.rollout_id.in_(ids))
    for name, state, n in rows(session, states.group_by(member.rollout_id, member.state)):
        counts[name][1][state] = n
    return counts


def _members(session: Session, rollout_id: str) -> dict[int, tuple[RolloutDeviceRow, ...]]:
    member, device = columns("rollout_device"), columns("device")
    query = (
        select(member.device_id.table, device.hardware_class, device.site)
        .join(device.id.table, device.id == member.device_id, isouter=True)
        .where(member.rollout_id == rollout_id)
        .order_by(member.wave, member.device_id)
    )
    waves: dict[int, tuple[RolloutDeviceRow, ...]] = {}
    for row in rows(session, query):
        waves[row.wave] = (*waves.get(row.wave, ()), _member_row(row))
    return waves


def _member_row(row: Any) -> RolloutDeviceRow:
    return RolloutDeviceRow(
        device=row.device_id,
        wave=row.wave,
        state=row.state,
        previous_version=row.previous_version,
        attempt=row.attempt,
        assignment_seq=row.assignment_seq,
        published_at=row.published_at,
        accepted_at=row.accepted_at,
        swapped_at=row.swapped_at,
        finished_at=row.finished_at,
        deadline=row.deadline,
        code=row.code,
        reason=row.reason,
        hardware_class=row.hardware_class or "",
        site=row.site or "",
        said=row.said or {},
    )


def _rollout_row(row: Any, waves: int, devices: dict[str, int]) -> RolloutRow:
    return RolloutRow(
        id=row.id,
        model=row.model,
        version=row.version,
        state=row.state,
        wave=row.wave,
        waves=waves,
        reason=row.reason,
        created_at=row.created_at,
        created_by=row.created_by,
        started_at=row.started_at,
        finished_at=row.finished_at,
        next_at=row.next_at,
        revision=row.revision,
        devices=devices,
        said=row.said or {},
    )


def _wave_row(row: Any, devices: tuple[RolloutDeviceRow, ...]) -> WaveRow:
    return WaveRow(
        number=row.number,
        name=row.name,
        state=row.state,
        size=row.size,
        started_at=row.started_at,
        soak_started_at=row.soak_started_at,
        finished_at=row.finished_at,
        approved_by=row.approved_by,
        devices=devices,
    )


def _stamp(text: str) -> datetime:
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError("invalid", "the cursor is not one of ours") from error
    if stamp.tzinfo is None:
        raise UsageError("invalid", "the cursor is not one of ours")
    return stamp
