"""Bench rounds in the tables: asked for, read, cancelled; the steps of `services/bench/rounds` are written here too.

    queued -> running -> done | failed      (queued, running -> cancelled)

A candidate is `waiting`, then `sent`, then `benched`, `failed` (the device's own report says why) or `timed_out`; `skipped`
where the round ended first. Nothing is kept in memory, so a killed server goes on where it was. Not here: keys, orders.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlmodel import Session, col, or_, select

from wavegate_server.adapters.database.tables import (
    BenchArtifact,
    BenchCandidate,
    BenchRound,
    Device,
    DeviceReport,
    Rollout,
    RolloutDevice,
)
from wavegate_server.adapters.reads.page import MAX_LIMIT, Page, cursor_text, cursor_value
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.device_slots import slots_of
from wavegate_server.core.rollout.plan import UNFINISHED
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import MODEL_NAME, Manifest, encode_manifest

__all__ = [
    "MAX_CANDIDATES",
    "NewCandidate",
    "RoundState",
    "cancel_round",
    "candidates_of",
    "create_round",
    "end_round",
    "free_device",
    "get_round",
    "how_to_enrol",
    "report_of",
    "round_document",
    "round_page",
    "unfinished_rounds",
]

MAX_CANDIDATES = 8
TIMEOUT_LIMITS_S = (1.0, 7200.0)
_ONLINE = timedelta(minutes=3)
_AT_REST = ("", "idle", "committed")


class RoundState(StrEnum):
    """Where a round is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


_OPEN = (RoundState.QUEUED.value, RoundState.RUNNING.value)


@dataclass(frozen=True, slots=True)
class NewCandidate:
    """A candidate to be measured; its artifacts are stored already."""

    name: str
    manifest: Manifest
    sha256: str

    @property
    def data(self) -> bytes:
        """The manifest's bytes, which the bench role signs."""
        return encode_manifest(self.manifest)


def create_round(
    session: Session,
    *,
    hardware_class: str,
    candidates: Sequence[NewCandidate],
    timeout_s: float,
    wait_s: float,
    actor: str,
    now: datetime,
) -> BenchRound:
    """A queued round; `candidates` begins with the original.

    Raises:
        UsageError: `invalid` (class, number of candidates, times), `conflict` (no device of the class is enrolled for
            benching: waiting would be in vain).
    """
    _check(hardware_class, candidates, timeout_s, wait_s)
    enrolled = select(Device.id).where(
        col(Device.bench).is_(True),
        Device.hardware_class == hardware_class,
        Device.state == "active",
    )
    if session.exec(enrolled).first() is None:
        raise UsageError("conflict", how_to_enrol(hardware_class))
    made = BenchRound(
        id=f"b-{secrets.token_hex(4)}",
        hardware_class=hardware_class,
        model=candidates[0].manifest.model,
        state=RoundState.QUEUED.value,
        reason="waits for a device",
        timeout_s=timeout_s,
        wait_s=wait_s,
        created_at=now,
        created_by=actor,
    )
    session.add(made)
    for number, candidate in enumerate(candidates):
        _add(session, made.id, number, candidate)
    session.flush()
    detail = {"class": hardware_class, "model": made.model, "candidates": [c.name for c in candidates[1:]]}
    audit.append(session, actor=actor, action="bench.create", subject=f"bench/{made.id}", now=now, detail=detail)
    return made


def how_to_enrol(hardware_class: str) -> str:
    """What is missing, and the command that mends it."""
    return (
        f"no active device of class {hardware_class} is enrolled for benching; enrol one: "
        f"wavegate device token ID --class {hardware_class} --site SITE --bench"
    )


def get_round(session: Session, round_id: str, *, lock: bool = False) -> BenchRound:
    """The round. Raises UsageError `not_found`."""
    query = select(BenchRound).where(BenchRound.id == round_id)
    found = session.exec(query.with_for_update() if lock else query).first()
    if found is None:
        raise UsageError("not_found", f"no bench round {round_id!r}")
    return found


def candidates_of(session: Session, round_id: str) -> list[BenchCandidate]:
    """Original first, then the others in their order."""
    query = select(BenchCandidate).where(BenchCandidate.round_id == round_id).order_by(col(BenchCandidate.number))
    return list(session.exec(query))


def round_page(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[BenchRound]:
    """Rounds, newest first. Raises UsageError `invalid` for a cursor that is not ours."""
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(BenchRound).order_by(col(BenchRound.created_at).desc(), col(BenchRound.id).desc())
    if cursor is not None:
        last = session.get(BenchRound, cursor_value(cursor))
        if last is None:
            raise UsageError("invalid", "the cursor is not one of ours")
        older = col(BenchRound.created_at) < last.created_at
        same = (col(BenchRound.created_at) == last.created_at) & (col(BenchRound.id) < last.id)
        query = query.where(or_(older, same))
    found = session.exec(query.limit(limit + 1)).all()
    items = tuple(found[:limit])
    return Page(items, cursor_text(items[-1].id) if len(found) > limit else None)


def round_document(session: Session, round_id: str) -> dict[str, Any]:
    """A round with its candidates and what their reports say, for the API and for whoever asked for it.

    Raises:
        UsageError: `not_found`.
    """
    found = get_round(session, round_id)
    original, *rest = candidates_of(session, round_id)
    about = found.model_dump() | {"class": found.hardware_class, "device": found.device_id}
    shown = [_with_report(session, row) for row in rest]
    return {**about, "original_size_bytes": original.size_bytes, "candidates": shown}


def _with_report(session: Session, row: BenchCandidate) -> dict[str, Any]:
    report = session.get(DeviceReport, row.report_id) if row.report_id else None
    body = report.body if report is not None else {}
    return {**row.model_dump(exclude={"manifest"}), "bench": body.get("bench"), "golden": body.get("golden")}


def unfinished_rounds(session: Session) -> list[str]:
    """Rounds somebody has to look at, oldest first: open ones, and finished ones whose targets are still listed."""
    query = select(BenchRound.id).where(or_(col(BenchRound.state).in_(_OPEN), col(BenchRound.listed)))
    return list(session.exec(query.order_by(col(BenchRound.created_at), col(BenchRound.id))))


def cancel_round(session: Session, round_id: str, *, actor: str, now: datetime) -> bool:
    """Ask a round to end; False when it had ended before. The next step gives the device its own order back."""
    found = get_round(session, round_id, lock=True)
    if found.state not in _OPEN:
        return False
    end_round(session, found, RoundState.CANCELLED, f"cancelled by {actor}", now)
    audit.append(session, actor=actor, action="bench.cancel", subject=f"bench/{round_id}", now=now)
    return True


def end_round(session: Session, found: BenchRound, state: RoundState, reason: str, now: datetime) -> None:
    """Close the books of a round; what was not measured is skipped."""
    for candidate in candidates_of(session, found.id)[1:]:
        if candidate.state in ("waiting", "sent"):
            candidate.state, candidate.finished_at = "skipped", now
            session.add(candidate)
    found.state, found.reason, found.finished_at = state.value, reason, now
    found.revision += 1
    session.add(found)
    audit.bump_revision(session)


def free_device(session: Session, hardware_class: str, now: datetime) -> Device | None:
    """The bench device of the class that was heard of last, is at rest, and is in no rollout or other round."""
    taken = select(BenchRound.device_id).where(BenchRound.state == RoundState.RUNNING.value)
    rolling = (
        select(RolloutDevice.device_id)
        .join(Rollout, col(Rollout.id) == RolloutDevice.rollout_id)
        .where(col(Rollout.state).in_([state.value for state in UNFINISHED]))
    )
    query = select(Device).where(
        col(Device.bench).is_(True),
        Device.state == "active",
        Device.hardware_class == hardware_class,
        col(Device.last_seen) > now - _ONLINE,
        col(Device.id).not_in(taken),
        col(Device.id).not_in(rolling),
    )
    for device in session.exec(query.order_by(col(Device.last_seen).desc(), col(Device.id))):
        if all(slot.state in _AT_REST for slot in slots_of(session, device.id).values()):
            return device
    return None


def report_of(session: Session, device_id: str, candidate: BenchCandidate) -> DeviceReport | None:
    """How the device says its order ended; also a refusal from before it became an order (assignment 0)."""
    since = candidate.sent_at
    query = select(DeviceReport).where(DeviceReport.device_id == device_id).order_by(col(DeviceReport.id).desc())
    own = session.exec(query.where(DeviceReport.assignment_seq == candidate.seq).limit(1)).first()
    if own is not None or since is None:
        return own
    early = query.where(DeviceReport.assignment_seq == 0, col(DeviceReport.received_at) >= since)
    return session.exec(early.where(DeviceReport.outcome == "refused").limit(1)).first()


def _check(hardware_class: str, candidates: Sequence[NewCandidate], timeout_s: float, wait_s: float) -> None:
    if MODEL_NAME.fullmatch(hardware_class) is None:
        raise UsageError("invalid", f"{hardware_class!r} cannot be a class for benching: a-z, 0-9 and - only")
    if not 2 <= len(candidates) <= MAX_CANDIDATES + 1:
        raise UsageError("invalid", f"a round takes an original and 1 to {MAX_CANDIDATES} candidates")
    names = [candidate.name for candidate in candidates]
    if len(set(names)) != len(names):
        raise UsageError("invalid", "two candidates have one name")
    low, high = TIMEOUT_LIMITS_S
    if not low <= timeout_s <= high or not 0 <= wait_s <= high:
        raise UsageError("invalid", f"timeout_s is {low:.0f} to {high:.0f}, wait_s at most {high:.0f}")


def _add(session: Session, round_id: str, number: int, candidate: NewCandidate) -> None:
    session.add(
        BenchCandidate(
            round_id=round_id,
            number=number,
            name=candidate.name,
            manifest=candidate.data,
            manifest_sha256=candidate.sha256,
            size_bytes=candidate.manifest.artifact("model").size_bytes,
        )
    )
    for artifact in candidate.manifest.artifacts:
        row: dict[str, Any] = {"name": artifact.name, "sha256": artifact.sha256}
        session.add(BenchArtifact(round_id=round_id, number=number, **row))
