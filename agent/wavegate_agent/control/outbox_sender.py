"""From the outbox to the broker: in order, a few at a time, again until the server says `stored`.

Order matters: the server drops what is at or below its watermark. So a new connection begins with the oldest message, and a
message that stays unconfirmed for too long makes everything from it on go out again.
"""

import threading
import time

from wavegate_agent.adapters.disk.outbox import Kind, Outbox
from wavegate_agent.control.ports import Connection
from wavegate_shared.topics import Topics

__all__ = ["OutboxSender"]

RESEND_FIRST_S = 30.0
RESEND_MAX_S = 600.0


class OutboxSender:
    """Sends what waits in the outbox. `send` is for one thread; the others only leave notes."""

    def __init__(self, outbox: Outbox, topics: Topics, shard: int, device: str) -> None:
        self._outbox = outbox
        self._topics = {
            kind: topics.up(shard, device, "tm" if kind == Kind.WINDOW else "ev")
            for kind in (Kind.WINDOW, Kind.STATE, Kind.REPORT)
        }
        self._lock = threading.Lock()
        self._cursor = (0, 0)
        self._unconfirmed_since: float | None = None
        self._patience_s = RESEND_FIRST_S

    def reconnected(self) -> None:
        """A new connection: begin with the oldest message."""
        with self._lock:
            self._rewind()
            self._patience_s = RESEND_FIRST_S

    def stored(self, upto: tuple[int, int]) -> None:
        """The server has everything up to `upto`."""
        self._outbox.stored(upto)
        with self._lock:
            self._patience_s = RESEND_FIRST_S
            self._unconfirmed_since = None if upto >= self._cursor else time.monotonic()

    def send(self, line: Connection) -> int:
        """Hand over as much as the line takes; returns how many messages that were."""
        with self._lock:
            since = self._unconfirmed_since
            if since is not None and time.monotonic() - since > self._patience_s:
                self._rewind()
                self._patience_s = min(RESEND_MAX_S, 2 * self._patience_s)
            cursor = start = self._cursor
        sent = 0
        while line.connected and line.room > 0:
            batch = self._outbox.waiting(cursor, line.room)
            for message in batch:
                if not line.publish(self._topics[message.kind], message.payload):
                    break
                cursor = (message.boot, message.seq)
                sent += 1
            else:
                if batch:
                    continue
            break
        if sent:
            self._outbox.sent(cursor)
            with self._lock:
                if self._cursor == start:  # else a reconnect came in between, and all of it goes out again
                    self._cursor = cursor
                if self._unconfirmed_since is None:
                    self._unconfirmed_since = time.monotonic()
        return sent

    def _rewind(self) -> None:
        self._cursor = (0, 0)
        self._unconfirmed_since = None
