"""The journal's file: two slots, allocated once, written in turn and synced.

It needs no new disk block after its creation, so the agent can still decide and remember on a full disk. Form and rules:
`core/journal_format.py`.
"""

import os
from pathlib import Path

from wavegate_agent.adapters.disk.durable import sync_directory, write_durably
from wavegate_agent.core.journal_format import SLOT_BYTES, SLOT_BYTES_0_1, Record, best, encode_slot

__all__ = ["Journal"]


class Journal:
    """The agent's memory. `load` after a crash returns the last record whose `save` returned, or the one after it."""

    def __init__(self, path: Path) -> None:
        _grow(path)
        created = not path.exists() or path.stat().st_size < 2 * SLOT_BYTES
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if created:
            os.posix_fallocate(self._file, 0, 2 * SLOT_BYTES)
            os.fsync(self._file)
            sync_directory(path.parent)
        found = best(os.pread(self._file, 2 * SLOT_BYTES, 0))
        self._seq = found[0] if found else 0
        self._record: Record | None = found[1] if found else None

    def load(self) -> Record | None:
        """The newest record; None on a new device, or when both slots are damaged."""
        return self._record

    def save(self, record: Record) -> None:
        """Make `record` durable; returns at once when nothing changed. On OSError the record before still counts."""
        if record == self._record:
            return
        seq = self._seq + 1
        os.pwrite(self._file, encode_slot(seq, record), (seq % 2) * SLOT_BYTES)
        os.fdatasync(self._file)
        self._seq, self._record = seq, record

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _grow(path: Path) -> None:
    """Replace a journal of release 0.1, whose slots were smaller, by one with the same newest record; all or nothing."""
    if not path.exists() or path.stat().st_size != 2 * SLOT_BYTES_0_1:
        return
    newest = best(path.read_bytes(), SLOT_BYTES_0_1)
    if newest is not None:
        seq, record = newest
        slots = [bytes(SLOT_BYTES), bytes(SLOT_BYTES)]
        slots[seq % 2] = encode_slot(seq, record)
        write_durably(path, b"".join(slots), 0o600)
