"""One client connection from a worker to another of the same device: the descriptor, and what was read of a request's head.

Nothing else of the request was taken from the socket, so the taker reads on as if it had accepted the connection itself.
"""

import socket

from wavegate_agent.core.http1 import MAX_HEAD_BYTES

__all__ = ["receive_connection", "send_connection"]

_MARK = b"c"
"""Opens each packet: an empty one would read like the end of the channel."""


def send_connection(inbox: socket.socket, client: socket.socket, head: bytes) -> None:
    """Send a connection; the caller then closes its own descriptor.

    Args:
        inbox: leads to the other worker.
        client: the connection.
        head: bytes already read of an unfinished request head.

    Raises:
        OSError: the inbox is full (BlockingIOError) or gone.
    """
    socket.send_fds(inbox, [_MARK + head], [client.fileno()], socket.MSG_DONTWAIT)


def receive_connection(inbox: socket.socket) -> tuple[socket.socket, bytes]:
    """The next connection sent here, and the bytes already read of its request head.

    Raises:
        BlockingIOError: there is none.
        OSError: nobody can send here any more, or the packet held no connection.
    """
    data, descriptors, _, _ = socket.recv_fds(inbox, MAX_HEAD_BYTES + len(_MARK), 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise OSError("a packet without a connection")
    return socket.socket(fileno=descriptors[0]), data[len(_MARK) :]
