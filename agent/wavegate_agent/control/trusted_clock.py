"""Trusted time on a device: the rules of `core/trusted_time.py` with its clocks and the server's signed answers."""

import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from wavegate_agent.adapters import clock
from wavegate_agent.core.trusted_time import TrustedTime
from wavegate_shared.assignment import TIME_TYPE, Assignment, TimeDocument
from wavegate_shared.dsse import Key, open_signed
from wavegate_shared.errors import TransferError, TrustError

__all__ = ["TrustedClock"]

_LOG = logging.getLogger(__name__)
_ASK_AGAIN_S = 60.0


class TrustedClock:
    """What time it is, and asking for it.

    Args:
        floor: from the journal.
        ask: nonce -> envelope; blocks. Raises TransferError.
        keys: the time keys, as the signed metadata name them.
    """

    def __init__(self, floor: datetime, ask: Callable[[str], bytes], keys: Callable[[], Sequence[Key]]) -> None:
        self._time = TrustedTime(floor, clock.boottime_s())
        self._ask, self._keys = ask, keys
        self._asked_s: float | None = None

    @property
    def state(self) -> str:
        """`ok`, or `suspect` where the clock may be wrong: the word of inventory and status."""
        return "suspect" if self.suspect else "ok"

    def now(self) -> datetime:
        """Trusted time."""
        return self._time.now(clock.now(), clock.boottime_s())

    @property
    def suspect(self) -> bool:
        """Whether the system clock is known to be wrong."""
        return self._time.suspect(clock.now(), clock.boottime_s())

    def seen(self, assignment: Assignment) -> datetime:
        """An assignment was accepted; the floor to remember."""
        self._time = self._time.seen(assignment.issued, assignment.expires, clock.boottime_s())
        return self._time.floor

    def challenge(self) -> None:
        """Ask the server for the time, at most once a minute.

        Raises:
            TrustError: `clock_untrusted` when no good answer came.
        """
        at = clock.boottime_s()
        if self._asked_s is not None and at - self._asked_s < _ASK_AGAIN_S:
            raise TrustError("clock_untrusted", "the server was asked for the time less than a minute ago")
        self._asked_s = at
        nonce = secrets.token_hex(16)
        try:
            answer = open_signed(self._ask(nonce), TimeDocument, TIME_TYPE, self._keys())
        except TransferError as error:
            self._asked_s = None
            raise TrustError("clock_untrusted", f"the server did not tell the time: {error.detail}") from error
        if not secrets.compare_digest(answer.nonce, nonce) or answer.time.tzinfo is None:
            raise TrustError("clock_untrusted", "the answer is to another question")
        self._time = self._time.answer(answer.time, at, clock.boottime_s())
        _LOG.info("time_told time=%s system=%s", answer.time.isoformat(), clock.now().isoformat())
