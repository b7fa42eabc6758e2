"""The bounded queue between the network thread and the writer of the ingest.

Its bound is the back-pressure: a full inbox stops the reading of the socket. (The broker's own window is none: Mosquitto
2.0.11 exceeds Receive Maximum after a burst of acknowledgements.)
"""

import threading
from collections import deque
from typing import NamedTuple

from wavegate_server.adapters.broker.clients import Ack

__all__ = ["BATCH_MESSAGES", "BATCH_S", "Inbox", "Message"]

BATCH_MESSAGES = 1000
BATCH_S = 0.02


class Message(NamedTuple):
    """One message on its way. Attributes: device (of the topic), payload (wire form), ack."""

    device: str
    payload: bytes
    ack: Ack


class Inbox:
    """A bounded queue: `put` waits while it is full, which stops the reading of the socket."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._items: deque[Message] = deque()
        self._bytes = 0
        self._max = (max_messages, max_bytes)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, message: Message) -> bool:
        """Add a message; False once closed."""
        items = self._items
        with self._changed:
            while len(items) >= self._max[0] or self._bytes >= self._max[1] or self._closed:
                if self._closed:
                    return False
                self._changed.wait()
            items.append(message)
            self._bytes += len(message.payload)
            if len(items) == 1 or len(items) == BATCH_MESSAGES:
                self._changed.notify_all()
            return True

    def take(self, timeout_s: float) -> list[Message]:
        """Up to a batch of messages: none after `timeout_s`, else what comes within `BATCH_S` of the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if self._items and len(self._items) < BATCH_MESSAGES and not self._closed:
                self._changed.wait_for(lambda: len(self._items) >= BATCH_MESSAGES or self._closed, BATCH_S)
            batch = [self._items.popleft() for _ in range(min(BATCH_MESSAGES, len(self._items)))]
            self._bytes -= sum(len(message.payload) for message in batch)
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Refuse further messages and wake everybody."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)
