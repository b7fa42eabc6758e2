"""Bench rounds at work: one look at each of them per tick of the engine.

A round takes a device of its class that is at rest, has its candidates signed by `bench/<class>`, gives it one order after
another, reads its signed reports, and at the end gives it its own order back and takes the targets off the list. The books
are written in one transaction a step, so a killed server repeats at most one step, and that harmlessly: signing the same
bytes again, or withdrawing what is gone, changes nothing. A newer order of a rollout ends the round; it never waits for it.
"""

import logging
from datetime import datetime, timedelta

from sqlalchemy import Engine
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import BenchCandidate, BenchRound, Device, DeviceAssignment
from wavegate_server.adapters.store.assignments import AssignmentBatch, AssignmentWriter
from wavegate_server.adapters.store.bench_rounds import (
    RoundState,
    candidates_of,
    end_round,
    free_device,
    get_round,
    report_of,
    unfinished_rounds,
)
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_shared.assignment import Beside, SlotAssignment
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import decode_manifest
from wavegate_shared.states import Outcome

__all__ = ["BenchRounds"]

_LOG = logging.getLogger(__name__)
_HOPELESS = ("bench_only", "signature_invalid", "metadata_invalid", "wrong_device")
"""What a device says of one candidate and would say of every other."""


class BenchRounds:
    """Runs rounds; `tick` does all that is due."""

    def __init__(self, database: Engine, tuf_repo: ImageRepository, orders: AssignmentWriter) -> None:
        self._database, self._tuf_repo, self._orders = database, tuf_repo, orders

    def tick(self, now: datetime) -> int:
        """One look at every round; how many changed. What fails in one becomes its reason."""
        with read(self._database) as session:
            rounds = unfinished_rounds(session)
        return sum(self._step(round_id, now) for round_id in rounds)

    def _step(self, round_id: str, now: datetime) -> bool:
        with read(self._database) as session:
            found = get_round(session, round_id)
            device = free_device(session, found.hardware_class, now) if found.state == RoundState.QUEUED else None
            names = [target_name(found.id, candidate) for candidate in candidates_of(session, round_id)]
        if found.state not in (RoundState.QUEUED, RoundState.RUNNING):
            return self._clean(found, names, now)
        if found.state == RoundState.RUNNING:
            return self._go_on(round_id, now)
        if device is None:
            return self._wait(round_id, now)
        try:
            self._list(round_id, now)
        except UsageError as error:
            return self._fail(round_id, f"its candidates could not be signed: {error.detail}", now)
        return self._begin(round_id, device.id, now)

    # --- before --------------------------------------------------------------------------------------------------------

    def _wait(self, round_id: str, now: datetime) -> bool:
        with read(self._database) as session:
            found = get_round(session, round_id)
        if now - found.created_at < timedelta(seconds=found.wait_s):
            return False
        busy = f"no bench device of class {found.hardware_class} was online and at rest within {found.wait_s:.0f} s"
        return self._fail(round_id, busy, now)

    def _list(self, round_id: str, now: datetime) -> None:
        """Sign every candidate; marked in the books first, so that a crash in between leaves nothing listed for ever."""
        with write(self._database) as session:
            found = get_round(session, round_id, lock=True)
            found.listed = True
            session.add(found)
            candidates = candidates_of(session, round_id)
        for candidate in candidates:
            name = target_name(round_id, candidate)
            self._tuf_repo.publish_bench(found.hardware_class, name, candidate.manifest, now)

    def _begin(self, round_id: str, device_id: str, now: datetime) -> bool:
        with write(self._database) as session:
            found = get_round(session, round_id, lock=True)
            device = free_device(session, found.hardware_class, now)
            if found.state != RoundState.QUEUED or device is None or device.id != device_id:
                return False  # somebody was quicker; the next look chooses again
            found.state, found.device_id, found.started_at = RoundState.RUNNING.value, device_id, now
            found.reason, found.revision = f"measures on {device_id}", found.revision + 1
            session.add(found)
            session.flush()
            with self._orders.batch(session, now) as batch:
                self._send_next(session, batch, found, now)
        _LOG.info("bench.begin round=%s device=%s class=%s", round_id, device_id, found.hardware_class)
        return True

    # --- candidate after candidate ---------------------------------------------------------------------------------------

    def _go_on(self, round_id: str, now: datetime) -> bool:
        with write(self._database) as session, self._orders.batch(session, now) as batch:
            found = get_round(session, round_id, lock=True)
            if found.state != RoundState.RUNNING:
                return False
            current = next((c for c in candidates_of(session, round_id)[1:] if c.state == "sent"), None)
            if current is not None and not self._ended(session, found, current, now):
                return False
            problem = _hopeless(session, found, current)
            if problem:
                end_round(session, found, RoundState.FAILED, problem, now)
                self._give_back(session, batch, found)
            elif not self._send_next(session, batch, found, now):
                measured = [c for c in candidates_of(session, round_id)[1:] if c.state == "benched"]
                state = RoundState.DONE if measured else RoundState.FAILED
                total = len(candidates_of(session, round_id)) - 1
                end_round(session, found, state, f"measured {len(measured)} of {total} on {found.device_id}", now)
                self._give_back(session, batch, found)
        _LOG.info("bench.step round=%s state=%s why=%s", round_id, found.state, found.reason)
        return True

    def _ended(self, session: Session, found: BenchRound, current: BenchCandidate, now: datetime) -> bool:
        """Whether the candidate in hand is done with; its row says how."""
        report = report_of(session, found.device_id, current)
        late = current.sent_at is not None and now - current.sent_at > timedelta(seconds=found.timeout_s)
        if report is not None:
            good = report.outcome == Outcome.BENCHED.value and report.body.get("sha256") == current.manifest_sha256
            current.state, current.report_id = "benched" if good else "failed", report.id
            current.code, current.detail = report.code, str(report.body.get("detail") or "")
        elif _superseded(session, found, current):
            current.state, current.code, current.detail = "failed", "superseded", "a newer assignment took its place"
        elif late:
            current.state, current.code = "timed_out", "transfer_stalled"
            current.detail = f"no report within {found.timeout_s:.0f} s"
        else:
            return False
        current.finished_at = now
        found.revision += 1
        session.add(current)
        session.add(found)
        session.flush()
        return True

    def _send_next(self, session: Session, batch: AssignmentBatch, found: BenchRound, now: datetime) -> bool:
        original, *rest = candidates_of(session, found.id)
        current = next((candidate for candidate in rest if candidate.state == "waiting"), None)
        if current is None:
            return False
        slot = _slot(found, current)
        beside = _slot(found, original)
        fields = {name: getattr(beside, name) for name in Beside.__struct_fields__}
        current.seq = batch.measure(
            found.device_id,
            SlotAssignment(**{**fields, **_fields(slot), "beside": Beside(**fields)}),
            reason=f"bench round {found.id}: {current.name}",
            meta_min=self._tuf_repo.bench_min(found.hardware_class),
        )
        current.state, current.sent_at = "sent", now
        session.add(current)
        session.flush()
        return True

    # --- after ---------------------------------------------------------------------------------------------------------

    def _give_back(self, session: Session, batch: AssignmentBatch, found: BenchRound) -> None:
        """The device's own order again, unless it got a newer one meanwhile."""
        last = max((candidate.seq for candidate in candidates_of(session, found.id)), default=0)
        row = session.get(DeviceAssignment, found.device_id)
        if last and row is not None and row.seq == last:
            model = decode_manifest(candidates_of(session, found.id)[0].manifest).model
            batch.restore(found.device_id, model, reason=f"bench round {found.id} is over")

    def _clean(self, found: BenchRound, names: list[str], now: datetime) -> bool:
        """Of a finished round: the device's order (a cancel leaves it to us) and the targets."""
        with write(self._database) as session, self._orders.batch(session, now) as batch:
            self._give_back(session, batch, get_round(session, found.id, lock=True))
        try:
            self._tuf_repo.withdraw_bench(found.hardware_class, names, now)
        except UsageError as error:  # the key went away meanwhile: they expire by themselves
            _LOG.warning("bench.not_withdrawn round=%s error=%s", found.id, error)
        with write(self._database) as session:
            row = get_round(session, found.id, lock=True)
            row.listed = False
            session.add(row)
        return True

    def _fail(self, round_id: str, reason: str, now: datetime) -> bool:
        with write(self._database) as session:
            end_round(session, get_round(session, round_id, lock=True), RoundState.FAILED, reason, now)
        _LOG.warning("bench.failed round=%s why=%s", round_id, reason)
        return True


def target_name(round_id: str, candidate: BenchCandidate) -> str:
    """The candidate's name among the targets of its class."""
    return f"{round_id}-{candidate.number}"


def _slot(found: BenchRound, candidate: BenchCandidate) -> SlotAssignment:
    manifest = decode_manifest(candidate.manifest)
    return SlotAssignment(
        model=manifest.model,
        target=f"bench/{found.hardware_class}/{target_name(found.id, candidate)}.json",
        length=len(candidate.manifest),
        sha256=candidate.manifest_sha256,
        release_seq=manifest.version,
    )


def _fields(slot: SlotAssignment) -> dict[str, object]:
    return {name: getattr(slot, name) for name in Beside.__struct_fields__}


def _superseded(session: Session, found: BenchRound, current: BenchCandidate) -> bool:
    row = session.get(DeviceAssignment, found.device_id)
    return row is not None and row.seq > current.seq


def _hopeless(session: Session, found: BenchRound, current: BenchCandidate | None) -> str:
    """Why going on would be in vain; empty when it would not."""
    device = session.get(Device, found.device_id)
    if device is None or device.state != "active":
        return f"{found.device_id} is no active device any more"
    if current is None or current.state == "benched":
        return ""
    if _superseded(session, found, current) or current.code == "superseded":
        return f"{found.device_id} got another assignment; it goes first"
    if current.state == "timed_out":
        return f"{found.device_id} did not report on {current.name} within {found.timeout_s:.0f} s: offline, or stuck"
    if current.code == "bench_only":
        return f"{found.device_id} was not enrolled for benching; enrol it again with a token made with --bench"
    return f"{found.device_id} refused {current.name}: {current.detail}" if current.code in _HOPELESS else ""
