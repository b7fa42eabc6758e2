"""Messages waiting for the server's `stored`: the one door to sqlite.

Every message has (boot, seq) and goes out in that order, because the server drops what is at or below its watermark. It
stays here until `Stored(boot, seq)` covers it. Bounded: windows that were never sent are merged into coarser ones, then the
oldest windows and states go; reports are never dropped. Losing the whole file is harmless: the server repeats assignments,
and a repeated one is answered with its report again. On a disk that refuses writes, the outbox lives on in memory.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavegate_agent.core.windows import coarser
from wavegate_shared.errors import TrustError
from wavegate_shared.wire import Window, decode_up, encode

__all__ = ["Kind", "Outbox", "Waiting"]

_LOG = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    boot INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, payload BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (boot, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said (subject TEXT PRIMARY KEY, what TEXT NOT NULL) WITHOUT ROWID;
"""


class Kind:
    """What a message is, as far as keeping it goes."""

    WINDOW = "window"
    STATE = "state"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Waiting:
    """One message to send."""

    boot: int
    seq: int
    kind: str
    payload: bytes


class Outbox:
    """A durable queue in (boot, seq) order, safe to use from several threads.

    Args:
        path: the sqlite file; made when missing, made anew when damaged.
        max_windows: telemetry windows kept before they are merged.
        max_states: state events kept before the oldest go.
    """

    def __init__(self, path: Path, *, max_windows: int = 2000, max_states: int = 1000) -> None:
        self._lock = threading.Lock()
        self._max = {Kind.WINDOW: max_windows, Kind.STATE: max_states}
        self._db = self._open(path)
        self.boot = self._one("SELECT COALESCE(MAX(boot), 0) FROM message")
        self._seq = 0

    def start(self, boot: int) -> None:
        """Number messages (boot, 1), (boot, 2), ... from now on."""
        with self._lock:
            self.boot = boot
            self._seq = self._one("SELECT COALESCE(MAX(seq), 0) FROM message WHERE boot = ?", boot)

    def put(self, kind: str, make: Callable[[int, int], bytes]) -> int:
        """Keep the message `make(boot, seq)`; returns its seq."""
        with self._lock:
            self._seq += 1
            payload = make(self.boot, self._seq)
            self._write(
                "INSERT INTO message (boot, seq, kind, payload) VALUES (?, ?, ?, ?)",
                (self.boot, self._seq, kind, payload),
            )
            if kind in self._max:
                self._bound(kind)
            return self._seq

    def said(self, subject: str) -> str:
        """The last thing noted with `say` about `subject`; empty when nothing was, or the outbox was lost."""
        with self._lock:
            row = self._db.execute("SELECT what FROM said WHERE subject = ?", (subject,)).fetchone()
        return "" if row is None else str(row[0])

    def say(self, subject: str, what: str) -> None:
        """Note what was last put into the outbox about `subject`."""
        with self._lock:
            self._write("INSERT OR REPLACE INTO said VALUES (?, ?)", (subject, what))

    def waiting(self, after: tuple[int, int], limit: int = 50) -> list[Waiting]:
        """The next messages after (boot, seq) `after`, in order."""
        with self._lock:
            rows = self._db.execute(
                "SELECT boot, seq, kind, payload FROM message WHERE (boot, seq) > (?, ?) ORDER BY boot, seq LIMIT ?",
                (*after, limit),
            ).fetchall()
        return [Waiting(*row) for row in rows]

    def sent(self, upto: tuple[int, int]) -> None:
        """Everything up to `upto` went out at least once: it may have been counted, so it is never merged again."""
        with self._lock:
            self._write("UPDATE message SET sent = 1 WHERE (boot, seq) <= (?, ?) AND sent = 0", upto)

    def stored(self, upto: tuple[int, int]) -> None:
        """The server has everything up to `upto`."""
        with self._lock:
            self._write("DELETE FROM message WHERE (boot, seq) <= (?, ?)", upto)

    def __len__(self) -> int:
        with self._lock:
            return self._one("SELECT COUNT(*) FROM message")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _bound(self, kind: str) -> None:
        if self._one("SELECT COUNT(*) FROM message WHERE kind = ?", kind) <= self._max[kind]:
            return
        if kind == Kind.WINDOW:
            self._merge()
        over = self._one("SELECT COUNT(*) FROM message WHERE kind = ?", kind) - self._max[kind]
        if over > 0:
            _LOG.warning("outbox_dropped kind=%s count=%s", kind, over)
            self._write(
                "DELETE FROM message WHERE (boot, seq) IN "
                "(SELECT boot, seq FROM message WHERE kind = ? ORDER BY boot, seq LIMIT ?)",
                (kind, over),
            )

    def _merge(self) -> None:
        rows = self._db.execute(
            "SELECT boot, seq, payload FROM message WHERE kind = ? AND sent = 0 ORDER BY boot, seq LIMIT ?",
            (Kind.WINDOW, self._max[Kind.WINDOW] // 2),
        ).fetchall()
        windows = [window for row in rows if isinstance(window := _decoded(row[2]), Window)]
        kept = [(w.boot, w.seq, Kind.WINDOW, encode(w)) for w in coarser(windows)]
        with self._db:
            self._db.executemany("DELETE FROM message WHERE boot = ? AND seq = ?", [row[:2] for row in rows])
            self._db.executemany("INSERT INTO message (boot, seq, kind, payload) VALUES (?, ?, ?, ?)", kept)

    def _one(self, query: str, *values: object) -> int:
        return int(self._db.execute(query, values).fetchone()[0])

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            with self._db:
                self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            _LOG.warning("outbox_in_memory error=%s", error)
            self._db = self._in_memory()
            with self._db:
                self._db.execute(statement, values)

    def _in_memory(self) -> sqlite3.Connection:
        memory = _connect(":memory:")
        rows = self._db.execute("SELECT boot, seq, kind, payload, sent FROM message").fetchall()
        with memory:
            memory.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?)", rows)
        self._db.close()
        return memory

    def _open(self, path: Path) -> sqlite3.Connection:
        try:
            return _connect(str(path))
        except sqlite3.OperationalError as error:
            _LOG.warning("outbox_in_memory error=%s", error)
            return _connect(":memory:")
        except sqlite3.DatabaseError as error:
            _LOG.warning("outbox_damaged error=%s", error)
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            return _connect(str(path))


def _connect(target: str) -> sqlite3.Connection:
    db = sqlite3.connect(target, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA cache_size=-256")
        db.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _decoded(payload: bytes) -> object:
    try:
        return decode_up(payload)
    except TrustError:  # a row this program did not write; it is dropped with its neighbours
        return None
