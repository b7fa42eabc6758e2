"""Give client connections to another worker at a request boundary, so that none is lost whatever dies meanwhile.

How to think of this: a connection is a descriptor, and two processes may hold one at the same time. What a client sends waits in
the kernel until somebody reads it, whoever that is. So a connection can change its owner without the client noticing, if two
things hold: nobody has read half a request (it is given only at a request boundary, and readers never take a byte of the next
request), and at every moment somebody who is alive answers for it.

The giver keeps its own copy of every socket it sent until the taker *claims* it (it is about to read) or says *complete*
(it answers for all of them). If the taker ends before that, the giver takes back every connection not claimed: their bytes
are still unread in the kernel. Only a request the taker had begun to read dies with it, as with any crash.

    giver                                   taker (accepts new connections already)
      ring of recent predictions  ────────►   keeps it: labels for them come here from now on
      connections (descriptors)   ────────►   waits for bytes on each
                                  ◄────────   claim(number)   before its first read
      sent(round, left)           ────────►
                                  ◄────────   complete(round) the giver closes its copies
      ... and again for each connection that was busy, after its answer

Control events come last in a batch of events, and each event's connection is looked up again, because an earlier event of the
batch may have moved it. Source: docs/adr/0004-worker-per-version.md.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterable

import msgspec

from wavegate_agent.adapters.channel import MAX_DESCRIPTORS, Channel, Packet
from wavegate_agent.adapters.serving.connections import Connection
from wavegate_agent.core.predictions import Prediction, decode_ring, encode_ring
from wavegate_agent.core.worker_messages import (
    Claim,
    Complete,
    Connections,
    Peer,
    RingFile,
    RingPart,
    Sent,
    decode_peer,
    encode,
)

__all__ = ["Giver", "Taker"]

_BATCH = MAX_DESCRIPTORS // 2


class Giver:
    """The side that serves now.

    Args:
        channel: leads to the taker; owned from here on.
        on_complete: called with the number still to be given each time the taker answers for all sent before.
        on_lost: called with the connections to take back when the taker is gone too early.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        on_complete: Callable[[int], None],
        on_lost: Callable[[list[Connection]], None],
    ) -> None:
        self.channel = channel
        self._held: dict[int, tuple[int, Connection]] = {}
        self._on_complete = on_complete
        self._on_lost = on_lost
        self._serial = 0
        self._left = -1
        self.ended = False

    def give_ring(self, predictions: list[Prediction]) -> None:
        """Send the recent predictions in a memory file: they may be larger than a packet."""
        file = os.memfd_create("predictions", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(file), "wb") as writer:
                writer.write(encode_ring(predictions))
            self._send(RingFile(), [file])
        finally:
            os.close(file)

    def give_prediction(self, prediction: Prediction) -> None:
        """Send one prediction made after the ring was sent; from any thread."""
        with contextlib.suppress(OSError):  # the loop sees the end of the channel by itself
            self.channel.send(encode(RingPart(encode_ring([prediction]))))

    def give(self, connections: Iterable[Connection], left: int) -> None:
        """Send connections that are at a request boundary, and how many are still to come."""
        self._serial += 1
        self._left = left
        batch: list[Connection] = []
        for connection in connections:
            self._held[connection.number] = (self._serial, connection)
            batch.append(connection)
            if len(batch) == _BATCH:
                self._send_batch(batch)
                batch = []
        self._send_batch(batch)
        self._send(Sent(self._serial, left))

    def _send_batch(self, batch: list[Connection]) -> None:
        if batch:
            items = [(connection.number, bytes(connection.head_bytes)) for connection in batch]
            self._send(Connections(items), [connection.sock.fileno() for connection in batch])

    def _send(self, message: Peer, descriptors: list[int] | None = None) -> None:
        if self.ended:
            return
        try:
            self.channel.send(encode(message), descriptors)
        except OSError:
            self._lose()

    def on_readable(self) -> None:
        """Read claims and completions."""
        while not self.ended:
            packet = self.channel.receive()
            if packet is None:
                return
            if packet.end:
                self._lose()
                return
            self._take_word(packet)

    def _take_word(self, packet: Packet) -> None:
        packet.close()
        try:
            message = decode_peer(packet.data)
        except msgspec.DecodeError:
            self._lose()
            return
        if isinstance(message, Claim):
            held = self._held.pop(message.number, None)
            if held is not None:
                held[1].release()
        elif isinstance(message, Complete):
            for number in [number for number, (serial, _) in self._held.items() if serial <= message.serial]:
                self._held.pop(number)[1].release()
            if message.serial == self._serial and self._left == 0:
                self.ended = True
                self.channel.close()
            self._on_complete(self._left)

    def _lose(self) -> None:
        if self.ended:
            return
        self.ended = True
        self.channel.close()
        back = [connection for _, connection in self._held.values()]
        self._held.clear()
        self._on_lost(back)

    def close(self) -> None:
        """Let go of the channel; connections not claimed are taken back."""
        self._lose()


class Taker:
    """The side that takes over.

    Args:
        channel: leads to the giver; owned from here on.
        on_connections: called with each batch; the receiver watches them and calls `claim` before the first read.
        on_ring: called with the predictions the giver made before.
        on_prediction: called with each one it makes meanwhile.
        on_settled: called once when the giver has sent all it could, or is gone: from here on an unknown request id is
            unknown.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        on_connections: Callable[[list[tuple[socket.socket, int, bytes]]], None],
        on_ring: Callable[[list[Prediction]], None],
        on_prediction: Callable[[Prediction], None],
        on_settled: Callable[[], None],
    ) -> None:
        self.channel = channel
        self._on_connections = on_connections
        self._on_ring = on_ring
        self._on_prediction = on_prediction
        self._on_settled = on_settled
        self.settled = False
        self.ended = False

    def claim(self, number: int) -> None:
        """Say that this connection is about to be read."""
        self._send(Claim(number))

    def on_readable(self) -> None:
        """Read what the giver sends."""
        while not self.ended:
            packet = self.channel.receive()
            if packet is None:
                return
            if packet.end:
                self.close()
                return
            try:
                self._take(packet)
            finally:
                packet.close()

    def _take(self, packet: Packet) -> None:
        try:
            message = decode_peer(packet.data)
        except msgspec.DecodeError:
            self.close()
            return
        if isinstance(message, RingFile):
            self._on_ring(_read_ring(packet))
        elif isinstance(message, RingPart):
            for prediction in decode_ring(message.data):
                self._on_prediction(prediction)
        elif isinstance(message, Connections):
            sockets = [socket.socket(fileno=descriptor) for descriptor in packet.descriptors]
            packet.descriptors.clear()
            self._on_connections(
                [(sock, number, head) for sock, (number, head) in zip(sockets, message.items, strict=True)]
            )
        elif isinstance(message, Sent):
            self._send(Complete(message.serial))
            self._settle()

    def _send(self, message: Peer) -> None:
        if not self.ended:
            with contextlib.suppress(OSError):
                self.channel.send(encode(message))

    def _settle(self) -> None:
        if not self.settled:
            self.settled = True
            self._on_settled()

    def close(self) -> None:
        """Let go of the channel; what was received stays."""
        if not self.ended:
            self.ended = True
            self.channel.close()
            self._settle()


def _read_ring(packet: Packet) -> list[Prediction]:
    if len(packet.descriptors) != 1:
        return []
    with os.fdopen(packet.descriptors.pop(), "rb") as file:
        file.seek(0)
        return decode_ring(file.read())
