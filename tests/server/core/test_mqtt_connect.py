"""Which CONNECT and which later packet may reach the embedded broker."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.core.mqtt_connect import (
    Accepted,
    Identity,
    Refusal,
    Refused,
    connack,
    judge_connect,
    judge_packet,
)
from wavegate_shared.topics import Topics

DEVICE = Identity("dev-a", server=False)
SERVER = Identity("ingest-0", server=True)
TOPICS = Topics()
CLEAN, WILL, WILL_RETAIN = 0x02, 0x04, 0x20


def text(value: str) -> bytes:
    return struct.pack("!H", len(value.encode())) + value.encode()


def body(
    client_id: str = "dev-a", *, flags: int = CLEAN, keepalive: int = 30, will: str | None = None, level: int = 4
) -> bytes:
    packet = text("MQTT") + bytes((level, flags)) + struct.pack("!H", keepalive) + text(client_id)
    return packet if will is None else packet + text(will) + text("gone")


def judge(data: bytes, identity: Identity = DEVICE) -> Accepted | Refused:
    return judge_connect(bytes((0x10, len(data))), data, identity=identity, topics=TOPICS)


def test_a_clean_connect_under_the_own_name_goes_on_with_the_keepalive_kept_by_the_gate() -> None:
    verdict = judge(body(keepalive=45))
    assert verdict == Accepted(bytes((0x10, len(body()))) + body(keepalive=0), 45)


def test_a_will_on_an_own_topic_goes_on_without_its_retain_flag() -> None:
    will = TOPICS.up(3, "dev-a", "ev")
    verdict = judge(body(flags=CLEAN | WILL | WILL_RETAIN, will=will))
    assert isinstance(verdict, Accepted)
    assert verdict.packet[2:] == body(flags=CLEAN | WILL, keepalive=0, will=will)


def test_the_server_may_leave_any_will() -> None:
    verdict = judge(body("ingest-0", flags=CLEAN | WILL, will=TOPICS.cmd("dev-a")), SERVER)
    assert isinstance(verdict, Accepted)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (body("dev-b"), Refusal.CLIENT_ID),
        (body(""), Refusal.CLIENT_ID),
        (body(flags=0), Refusal.NOT_AUTHORIZED),
        (body(flags=CLEAN | WILL, will=TOPICS.up(3, "dev-b", "ev")), Refusal.NOT_AUTHORIZED),
        (body(flags=CLEAN | WILL, will=TOPICS.cmd("dev-b")), Refusal.NOT_AUTHORIZED),
        (body(flags=CLEAN | WILL, will="#"), Refusal.NOT_AUTHORIZED),
        (body(level=5), Refusal.PROTOCOL),
        (body(level=3), Refusal.PROTOCOL),
        (body(flags=CLEAN | 1), Refusal.PROTOCOL),
        (body() + b"x", Refusal.PROTOCOL),
        (body()[:-1], Refusal.PROTOCOL),
        (body(flags=CLEAN | 0x80), Refusal.PROTOCOL),
        (b"", Refusal.PROTOCOL),
    ],
)
def test_everything_else_is_refused(data: bytes, code: Refusal) -> None:
    verdict = judge(data)
    assert isinstance(verdict, Refused)
    assert verdict.code is code
    assert connack(verdict.code) == bytes((0x20, 2, 0, code))


def test_a_first_packet_that_is_no_connect_is_refused() -> None:
    assert isinstance(judge_connect(b"\x30\x00", b"", identity=DEVICE, topics=TOPICS), Refused)


@given(st.binary(max_size=80))
def test_no_bytes_pass_as_somebody_else(data: bytes) -> None:
    verdict = judge(data)
    assert isinstance(verdict, Refused) or b"dev-a" in verdict.packet


def publish(topic: str, flags: int = 0) -> tuple[bytes, bytes]:
    packet = text(topic) + b"\x00\x07payload"
    return bytes((0x30 | flags, len(packet))), packet


def test_a_publish_loses_its_retain_flag_and_nothing_else() -> None:
    head, packet = publish("a/b", flags=0x03)
    assert judge_packet(head, packet) == bytes((0x32,)) + head[1:] + packet


@pytest.mark.parametrize("topic", ["a/+", "#", "", "$SYS/x", "a\0b"])
def test_a_topic_that_is_no_name_ends_the_connection(topic: str) -> None:
    assert judge_packet(*publish(topic)) is None


@pytest.mark.parametrize("first", [0x34, 0x36, 0x10, 0x00, 0xF0])
def test_qos_2_a_second_connect_and_reserved_packets_end_the_connection(first: int) -> None:
    assert judge_packet(bytes((first, 9)), publish("a/b")[1]) is None


def test_a_publish_too_short_for_its_topic_ends_the_connection() -> None:
    assert judge_packet(b"\x30\x01", b"\x00") is None


def test_other_packets_pass_as_they_are() -> None:
    assert judge_packet(b"\x82\x05", b"\x00\x01abc") == b"\x82\x05\x00\x01abc"


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "x" * 64, "a b"])
def test_a_name_with_topic_characters_is_no_identity(name: str) -> None:
    with pytest.raises(ValueError, match="identity"):
        Identity(name, server=False)
