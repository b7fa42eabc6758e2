"""One end of a SOCK_SEQPACKET pair: packets with file descriptors beside them.

A packet arrives whole or not at all, and what was sent before a process died is still read before the end shows. Not
here: what the packets mean (`core/worker_messages.py`).
"""

import os
import socket
from dataclasses import dataclass, field

from wavegate_agent.core.worker_messages import MAX_PACKET_BYTES

__all__ = ["MAX_DESCRIPTORS", "Channel", "Packet", "pair"]

MAX_DESCRIPTORS = 128
"""Per packet; the kernel allows 253."""
_SEND_TIMEOUT_S = 2.0


@dataclass(slots=True)
class Packet:
    """One packet. `end` means the other side is gone; descriptors belong to the reader, who closes them."""

    data: bytes = b""
    descriptors: list[int] = field(default_factory=list)
    end: bool = False

    def close(self) -> None:
        """Close the descriptors nobody took."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Channel:
    """A packet socket; `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._reader = sock
        self._reader.setblocking(False)
        self._sender = sock.dup()  # same socket, other waiting rule: sends may wait a little, reads never
        self._sender.settimeout(_SEND_TIMEOUT_S)

    @classmethod
    def from_descriptor(cls, descriptor: int) -> "Channel":
        """Take over an inherited or received descriptor."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """The descriptor, -1 after `close`."""
        return self._reader.fileno()

    def send(self, data: bytes, descriptors: list[int] | None = None) -> None:
        """Send one packet; the caller keeps its own copies of the descriptors.

        Raises:
            OSError: the other side is gone, or did not read for two seconds.
        """
        if len(data) > MAX_PACKET_BYTES:
            raise OSError(f"packet of {len(data)} bytes")
        socket.send_fds(self._sender, [data], descriptors or [])

    def receive(self) -> Packet | None:
        """The next packet, None when there is none now."""
        try:
            return self._receive()
        except ConnectionError:
            # the other side ended with packets of ours unread; the kernel says so once, before what it had sent to us
            try:
                return self._receive()
            except ConnectionError:
                return Packet(end=True)

    def _receive(self) -> Packet | None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._reader, MAX_PACKET_BYTES, MAX_DESCRIPTORS + 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        packet = Packet(data, list(descriptors), end=not data)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            packet.close()
            return Packet(end=True)
        return packet

    def close(self) -> None:
        """Close this end; twice is allowed."""
        self._sender.close()
        self._reader.close()


def pair() -> tuple[Channel, socket.socket]:
    """A connected pair: our end, and the socket for the other side."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), theirs
