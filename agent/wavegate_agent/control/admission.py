"""From an envelope off the network to offers for the machine: verified, numbered, remembered.

An assignment that cannot be judged yet (no network, no trusted time) is kept in memory and tried again; one that is refused
is answered with a report and leaves everything as it is.
"""

import errno
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from wavegate_agent.control.assignment_files import AssignmentFiles
from wavegate_agent.control.ports import Gatekeeper
from wavegate_agent.control.trusted_clock import TrustedClock
from wavegate_agent.core.journal_format import MAX_SLOTS, Record
from wavegate_agent.core.machine_types import AssignedVersion, Offer, Slot, Version
from wavegate_agent.core.verify import BENCH_PREFIX
from wavegate_shared.assignment import Assignment, SlotAssignment
from wavegate_shared.errors import DeviceError, TransferError, TrustError, WavegateError
from wavegate_shared.manifest import MODEL_NAME

__all__ = ["Accepted", "Admission", "offers"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_NAME = 40
_LOG = logging.getLogger(__name__)
_MAYBE_CLOCK = frozenset({"assignment_expired", "metadata_stale", "metadata_invalid"})
"""Refusals that a wrong clock can cause; the server is asked for the time before they are believed."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A verified assignment and what it offers to each model."""

    assignment: Assignment
    offers: dict[str, Offer]


class Admission:
    """Takes envelopes on the step thread.

    Args:
        refuse: reports an error that happened before there was an assignment.
    """

    def __init__(
        self,
        verifier: Gatekeeper,
        trusted_clock: TrustedClock,
        assignment_files: AssignmentFiles,
        refuse: Callable[[WavegateError], None],
    ) -> None:
        self._verifier, self._trusted_clock, self._assignment_files, self._refuse = (
            verifier,
            trusted_clock,
            assignment_files,
            refuse,
        )
        self.waiting: bytes | None = None
        """An envelope to try again when the network is back or some time went by."""

    def take(self, envelope: bytes, record: Record) -> Accepted | None:
        """Verify an envelope for a device that remembers `record`; None when it was refused or has to wait."""
        last_seq = record.last_seq
        self.waiting = None
        try:
            assignment = _checked(self._opened(envelope, last_seq))
            _check_complete(assignment, record)
            if assignment.seq > last_seq:
                self._assignment_files.write(assignment.seq, envelope)
        except TransferError as error:
            _LOG.info("assignment_waits error=%s", error)
            self.waiting = envelope
            return None
        except WavegateError as error:
            if error.code == "clock_untrusted":
                self.waiting = envelope
            self._refuse(error)
            return None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.waiting = envelope
            self._refuse(DeviceError("disk_full", "no room to keep the assignment"))
            return None
        return Accepted(assignment, offers(assignment, record))

    def _opened(self, envelope: bytes, last_seq: int) -> Assignment:
        if self._trusted_clock.suspect:
            self._trusted_clock.challenge()
        try:
            return self._verifier.open(envelope, last_seq=last_seq, now=self._trusted_clock.now())
        except TrustError as error:
            if error.code not in _MAYBE_CLOCK:
                raise
            before = self._trusted_clock.now()
            try:
                self._trusted_clock.challenge()
            except TrustError:
                raise error from None
            if abs((self._trusted_clock.now() - before).total_seconds()) < 1:
                raise  # the clock was right, so the refusal is
        return self._verifier.open(envelope, last_seq=last_seq, now=self._trusted_clock.now())


def _checked(assignment: Assignment) -> Assignment:
    """What goes into the journal has bounded fields, also when a director is careless."""
    for name, wanted in assignment.slots.items():
        good = (
            MODEL_NAME.fullmatch(wanted.model) and _SHA256.fullmatch(wanted.sha256) and 0 < wanted.release_seq < 2**31
        )
        if not good or len(name) > _MAX_NAME:
            raise TrustError("message_malformed", f"slot {name[:40]!r} names no version")
        if wanted.beside is not None and not (
            _SHA256.fullmatch(wanted.beside.sha256) and wanted.target.startswith(BENCH_PREFIX)
        ):
            raise TrustError("message_malformed", f"slot {name[:40]!r} names what only a bench candidate stands beside")
    if not all(MODEL_NAME.fullmatch(name) and removal.seq < 2**31 for name, removal in assignment.removed.items()):
        raise TrustError("message_malformed", "a removal names no model")
    rollouts = [assignment.rollout, *(entry.rollout for entry in assignment.slots.values())]
    rollouts += [removal.rollout for removal in assignment.removed.values()]
    numbers = [assignment.seq, *(entry.seq for entry in assignment.slots.values())]
    if max(len(rollout or "") for rollout in rollouts) > _MAX_NAME or max(numbers) >= 2**31:
        raise TrustError("message_malformed", "rollout or sequence number too large")
    return assignment


def _check_complete(assignment: Assignment, record: Record) -> None:
    """No model is named twice, none of this device's is left out, and there is room for all."""
    models = [entry.model for entry in assignment.slots.values()]
    twice = sorted({model for model in models if models.count(model) > 1 or model in assignment.removed})
    if twice:
        raise TrustError("slot_duplicate", f"assignment {assignment.seq} names {twice[0]} twice")
    if not models and not assignment.removed:
        return
    named = {*models, *assignment.removed}
    missing = sorted(name for name, slot in record.slots.items() if slot.active is not None and name not in named)
    if missing:
        raise TrustError(
            "slot_missing", f"assignment {assignment.seq} leaves out {missing[0]}, which this device serves"
        )
    if len(models) > MAX_SLOTS:
        raise DeviceError("incompatible", f"{len(models)} models; a device serves {MAX_SLOTS} at most")


def offers(assignment: Assignment, record: Record) -> dict[str, Offer]:
    """What a verified assignment means for each model: a version, or its removal.

    An entry that a model's machine took before is left out, unless the whole assignment came before: then the server may have
    missed a report. A model that was never installed and is not named any more is taken away.
    """
    repeated = assignment.seq <= record.last_seq
    offered: dict[str, Offer] = {}
    for entry in assignment.slots.values():
        slot = record.slots.get(entry.model)
        assigned = _assigned(assignment, entry)
        if repeated or slot is None or slot.assigned is None or slot.assigned.seq != assigned.seq:
            offered[entry.model] = Offer(assigned, quarantined=entry.sha256 in record.quarantined)
    if not assignment.slots and not assignment.removed:
        return offered
    for name, slot in record.slots.items():
        if name not in offered and all(entry.model != name for entry in assignment.slots.values()):
            offered[name] = Offer(_removal(assignment, name, slot))
    return offered


def _assigned(assignment: Assignment, entry: SlotAssignment) -> AssignedVersion:
    return AssignedVersion(
        seq=entry.seq or assignment.seq,
        version=Version(model=entry.model, version=entry.release_seq, sha256=entry.sha256),
        rollout=entry.rollout if entry.seq else assignment.rollout,
        allow_older=entry.allow_older,
        override=entry.override_quarantine,
        probation=entry.probation or assignment.probation,
        bench=entry.target.startswith(BENCH_PREFIX),
        envelope=assignment.seq if entry.seq not in (0, assignment.seq) else 0,
    )


def _removal(assignment: Assignment, name: str, slot: Slot) -> AssignedVersion:
    said = assignment.removed.get(name)
    return AssignedVersion(
        seq=said.seq if said is not None else assignment.seq,
        version=slot.active or Version(model=name, version=0, sha256=""),
        rollout=said.rollout if said is not None else None,
        remove=True,
        envelope=assignment.seq if said is not None and said.seq != assignment.seq else 0,
    )
