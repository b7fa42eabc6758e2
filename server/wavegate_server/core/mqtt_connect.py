"""Reading MQTT 3.1.1 packets far enough to judge them before the embedded broker sees a byte.

The broker library deletes and takes over sessions before it authenticates, keeps retained messages it later sends to the
wrong client, and publishes a will without asking its access rule. So what it is given has already been judged here: who
may connect (`judge_connect`) and what a client may send afterwards (`judge_packet`). Pure: bytes in, verdict out.

Source: MQTT 3.1.1 (OASIS), sections 2.2 (fixed header), 3.1 (CONNECT), 3.3 (PUBLISH).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from wavegate_shared.topics import DEVICE_ID, Topics, device_may_publish

__all__ = ["Accepted", "Identity", "Refusal", "Refused", "connack", "judge_connect", "judge_packet"]

CONNECT = 1
PUBLISH = 3
DISCONNECT = 14
_PROTOCOL_LEVEL = 4
_CLEAN = 0x02
_WILL = 0x04
_WILL_RETAIN = 0x20
_PASSWORD = 0x40
_USERNAME = 0x80


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate speaks for. Attributes: name (the common name), server (organizational unit `server`)."""

    name: str
    server: bool

    def __post_init__(self) -> None:
        if DEVICE_ID.fullmatch(self.name) is None:
            raise ValueError("the certificate's common name is not an identity")


class Refusal(IntEnum):
    """CONNACK return codes (MQTT 3.1.1, table 3.1)."""

    PROTOCOL = 1
    CLIENT_ID = 2
    NOT_AUTHORIZED = 5


@dataclass(frozen=True, slots=True)
class Accepted:
    """A CONNECT that may go on. Attributes: packet (as the broker is to see it), keepalive_s (0: none)."""

    packet: bytes
    keepalive_s: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A CONNECT that ends here. Attributes: code for the CONNACK, reason for the log."""

    code: Refusal
    reason: str


class _Reader:
    """A cursor over a packet's body that never reads past its end (ValueError)."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.at = 0

    def take(self, size: int) -> bytes:
        piece = self._body[self.at : self.at + size]
        if len(piece) != size:
            raise ValueError("packet ends too early")
        self.at += size
        return piece

    def number(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def blob(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        return self.blob().decode()

    @property
    def done(self) -> bool:
        return self.at == len(self._body)


def judge_connect(head: bytes, body: bytes, *, identity: Identity, topics: Topics) -> Accepted | Refused:
    """Whether a first packet may reach the broker.

    The accepted packet has its keep-alive set to 0 (the gate watches it; the library's watch does nothing) and its will
    without the retain flag.

    Args:
        head: fixed header, 2 to 5 bytes.
        body: the rest of the packet.
        identity: from the client's certificate.
        topics: the fleet's topics, for the rule about wills.
    """
    if head[0] != CONNECT << 4:
        return Refused(Refusal.NOT_AUTHORIZED, "first packet is not a CONNECT")
    try:
        return _judge_body(head, body, identity, topics)
    except (ValueError, IndexError):
        return Refused(Refusal.PROTOCOL, "CONNECT is malformed")


def _judge_body(head: bytes, body: bytes, identity: Identity, topics: Topics) -> Accepted | Refused:
    reader = _Reader(body)
    if reader.text() != "MQTT" or reader.take(1)[0] != _PROTOCOL_LEVEL:
        return Refused(Refusal.PROTOCOL, "protocol is not MQTT 3.1.1")
    flags_at = reader.at
    flags = reader.take(1)[0]
    keepalive_at = reader.at
    keepalive_s = reader.number()
    client_id = reader.text()
    if flags & 0x01:
        return Refused(Refusal.PROTOCOL, "reserved flag is set")
    if client_id != identity.name:
        return Refused(Refusal.CLIENT_ID, "client id is not the certificate's name")
    if not flags & _CLEAN:
        return Refused(Refusal.NOT_AUTHORIZED, "session is not clean")
    if flags & _WILL:
        will_topic = reader.text()
        reader.blob()
        if not _topic_name_ok(will_topic) or not (
            identity.server or device_may_publish(topics, identity.name, will_topic)
        ):
            return Refused(Refusal.NOT_AUTHORIZED, "will is on a topic of somebody else")
    for flag in (_USERNAME, _PASSWORD):
        if flags & flag:
            reader.blob()
    if not reader.done:
        return Refused(Refusal.PROTOCOL, "bytes after the CONNECT")
    changed = bytearray(body)
    changed[flags_at] = flags & ~_WILL_RETAIN
    struct.pack_into("!H", changed, keepalive_at, 0)
    return Accepted(bytes(head) + bytes(changed), keepalive_s)


def judge_packet(head: bytes, body: bytes) -> bytes | None:
    """A later packet as the broker is to see it, or None when the client breaks a rule and has to go.

    Retain flags are cleared: no part of Wavegate relies on retained messages, and the library sends them to clients that
    may not read them. QoS 2, a second CONNECT and topic names with wildcards end the connection.
    """
    kind, flags = head[0] >> 4, head[0] & 0x0F
    if kind == PUBLISH:
        if flags & 0x06 > 0x02:
            return None
        try:
            topic = _Reader(body).text()
        except ValueError:
            return None
        if not _topic_name_ok(topic):
            return None
        return bytes((head[0] & 0xFE,)) + head[1:] + body
    if kind in (0, CONNECT, 15):
        return None
    return head + body


def connack(code: Refusal) -> bytes:
    """The CONNACK that tells a client why it was refused."""
    return bytes((0x20, 2, 0, int(code)))


def _topic_name_ok(topic: str) -> bool:
    return bool(topic) and not topic.startswith("$") and not any(char in topic for char in "+#\0")
