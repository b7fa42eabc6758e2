"""Packets with descriptors."""

import os

import pytest

from wavegate_agent.adapters.channel import Channel, pair
from wavegate_agent.core.worker_messages import MAX_PACKET_BYTES


def test_packets_keep_their_borders_and_carry_descriptors() -> None:
    ours, theirs = pair()
    other = Channel(theirs)
    read, write = os.pipe()
    ours.send(b"one", [write])
    ours.send(b"two")
    os.close(write)
    first = other.receive()
    assert first is not None
    os.write(first.descriptors[0], b"x")
    first.close()
    second = other.receive()
    assert os.read(read, 1) == b"x"
    assert (first.data, second and second.data, other.receive()) == (b"one", b"two", None)
    os.close(read)
    ours.close()
    other.close()


def test_what_was_sent_before_the_end_is_read_before_the_end() -> None:
    ours, theirs = pair()
    other = Channel(theirs)
    ours.send(b"last words")
    ours.close()
    said, end = other.receive(), other.receive()
    assert said is not None
    assert end is not None
    assert (said.data, said.end, end.end) == (b"last words", False, True)
    with pytest.raises(OSError, match=r".+"):
        other.send(b"to nobody")
    other.close()
    other.close()


def test_a_packet_too_large_is_refused() -> None:
    ours, theirs = pair()
    with theirs, pytest.raises(OSError, match="packet of"):
        ours.send(b"x" * (MAX_PACKET_BYTES + 1))
    ours.close()


def test_a_reader_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegate_agent.adapters.channel._SEND_TIMEOUT_S", 0.05)
    ours, theirs = pair()

    def flood() -> None:
        for _ in range(1000):
            ours.send(b"x" * 10_000)

    with theirs, pytest.raises(TimeoutError):
        flood()
    ours.close()


def test_last_words_are_read_although_our_own_were_not() -> None:
    """The kernel reports a reset before the packets that were sent: they must not be lost for it."""
    ours, theirs = pair()
    other = Channel(theirs)
    ours.send(b"never read")
    other.send(b"last words")
    other.close()
    said, end = ours.receive(), ours.receive()
    assert (said and said.data, end and end.end) == (b"last words", True)
    ours.close()
