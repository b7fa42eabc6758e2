"""Accepted assignments in their envelopes, one durable file each, until no slot works on them any more.

The journal holds what an assignment says; the envelope is kept so that its signature can be checked again after a restart, and so
that an operator can see what the server really sent.
"""

import base64
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from wavegate_agent.adapters.disk.durable import write_durably
from wavegate_shared.assignment import Assignment
from wavegate_shared.decoding import MALFORMED
from wavegate_shared.errors import TrustError

__all__ = ["AssignmentFiles"]


class _Envelope(msgspec.Struct):
    payload: str


class AssignmentFiles:
    """Envelopes by assignment number.

    Args:
        directory: the agent's state directory.
        wanted: numbers that are still needed.
    """

    def __init__(self, directory: Path, wanted: Callable[[], Collection[int]]) -> None:
        self._directory, self._wanted = directory, wanted

    def write(self, seq: int, envelope: bytes) -> None:
        """Keep an envelope durably. Raises OSError."""
        write_durably(self._path(seq), envelope, 0o600)

    def read(self, seq: int) -> bytes:
        """An envelope kept earlier. Raises TrustError `message_malformed` when it is gone."""
        try:
            return self._path(seq).read_bytes()
        except OSError as error:
            raise TrustError("message_malformed", f"the envelope of assignment {seq} is gone: {error}") from error

    def beside(self, seq: int) -> dict[str, str]:
        """Model -> manifest digest of what its bench candidate is measured beside; nothing where the envelope is gone.

        Says only what is kept on disk and looked for there: the signature was checked when it came, and is again before use.
        """
        try:
            payload = msgspec.json.decode(self._path(seq).read_bytes(), type=_Envelope).payload
            slots = msgspec.json.decode(base64.b64decode(payload), type=Assignment).slots
        except OSError:
            return {}
        except MALFORMED:
            return {}
        return {slot.model: slot.beside.sha256 for slot in slots.values() if slot.beside is not None}

    def tidy(self) -> None:
        """Delete the envelopes nobody needs."""
        keep = {self._path(seq).name for seq in self._wanted()}
        for path in self._directory.glob("assignment-*.json"):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def _path(self, seq: int) -> Path:
        return self._directory / f"assignment-{seq}.json"
