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
from wavegate_agent.core.machine_types import AssignedVersion, Offer, Version
from wavegate_agent.core.verify import BENCH_PREFIX
from wavegate_shared.assignment import Assignment
from wavegate_shared.errors import DeviceError, TransferError, TrustError, WavegateError
from wavegate_shared.manifest import MODEL_NAME

__all__ = ["Accepted", "Admission"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_NAME = 40
_LOG = logging.getLogger(__name__)
_MAYBE_CLOCK = frozenset({"assignment_expired", "metadata_stale", "metadata_invalid"})
"""Refusals that a wrong clock can cause; the server is asked for the time before they are believed."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A verified assignment and what it offers to each slot."""

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

    def take(self, envelope: bytes, last_seq: int, quarantined: tuple[str, ...]) -> Accepted | None:
        """Verify an envelope; None when it was refused or has to wait."""
        self.waiting = None
        try:
            assignment = _checked(self._opened(envelope, last_seq))
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
        return Accepted(assignment, {name: _offer(assignment, name, quarantined) for name in assignment.slots})

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
    if len(assignment.rollout or "") > _MAX_NAME or assignment.seq >= 2**31:
        raise TrustError("message_malformed", "rollout or sequence number too large")
    return assignment


def _offer(assignment: Assignment, name: str, quarantined: tuple[str, ...]) -> Offer:
    wanted = assignment.slots[name]
    assigned = AssignedVersion(
        seq=assignment.seq,
        version=Version(model=wanted.model, version=wanted.release_seq, sha256=wanted.sha256),
        rollout=assignment.rollout,
        allow_older=wanted.allow_older,
        override=wanted.override_quarantine,
        probation=assignment.probation,
        bench=wanted.target.startswith(BENCH_PREFIX),
    )
    return Offer(assigned, quarantined=wanted.sha256 in quarantined)
