"""The director: signs what one device should run, and the time. Online keys; they can only pick among released versions."""

from datetime import datetime

from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_shared.assignment import ASSIGNMENT_TYPE, TIME_TYPE, Assignment, TimeDocument
from wavegate_shared.dsse import Signer, seal

__all__ = ["Director"]


class Director:
    """Seals assignments (about 40 us each) and time answers. Safe to share between threads."""

    def __init__(self, signer: Signer, time_signer: Signer) -> None:
        self._signer = signer
        self._time_signer = time_signer

    @classmethod
    def from_keys(cls, keystore: KeyStore) -> "Director":
        """With the keys `director` and `time`. Raises UsageError `key_missing`."""
        return cls(keystore.signer("director"), keystore.signer("time"))

    def seal(self, assignment: Assignment) -> bytes:
        """The assignment in a signed DSSE envelope (JSON), about 1 kB."""
        return seal(assignment, ASSIGNMENT_TYPE, self._signer)

    def answer_time(self, nonce: str, now: datetime) -> bytes:
        """The signed answer to a device's nonce challenge."""
        return seal(TimeDocument(nonce=nonce, time=now), TIME_TYPE, self._time_signer)
