"""Bodies in their codings: the same whatever the pieces, and never more than may be held."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_agent.core.http1 import HttpError
from wavegate_agent.core.request_body import ChunkedBody, decoded

BODY = b'4\r\nWave\r\nA;x="y"\r\ngate\r\n\x00 ok\r\n0\r\nX-Sum: 1\r\n\r\n'
NEXT = b"GET / HTTP/1.1\r\n\r\n"


def read(pieces: list[bytes], max_bytes: int = 100) -> tuple[bytes, int, bool]:
    """Body, how many bytes belonged to it, whether it was whole."""
    body, used = ChunkedBody(max_bytes), 0
    for piece in pieces:
        used += body.feed(piece)
    return bytes(body.data), used, body.done


@given(st.lists(st.integers(1, len(BODY + NEXT) - 1), unique=True).map(sorted))
def test_any_cut_gives_the_same_body_and_leaves_the_same_rest(cuts: list[int]) -> None:
    whole = BODY + NEXT
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(pieces) == (b"Wavegate\r\n\x00 ok", len(BODY), True)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_what_a_client_frames_comes_back(chunks: list[bytes]) -> None:
    coded = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert read([coded + NEXT], 400) == (b"".join(chunks), len(coded), True)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n", 400),
        (b"x\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x3\r\nabc\r\n", 400),
        (b"3\nabc\r\n", 400),
        (b"3 \r\nabc\r\n", 400),
        (b"3\r\nabcd\r\n", 400),
        (b"3\r\nabc\n", 400),
        (b"3;" + b"a" * 300 + b"\r\n", 400),
        (b"0\r\nno colon\r\n\r\n", 400),
        (b"0\r\nA: b\nC: d\r\n\r\n", 400),
        (b"0\r\n" + b"A: b\r\n" * 2000, 400),
        (b"65\r\n", 413),
        (b"3\r\nabc\r\n62\r\n", 413),
        (b"FFFFFFFFFFFFF\r\n", 400),
    ],
)
def test_what_two_parsers_could_read_differently_or_is_too_large_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        read([data])
    assert refused.value.status == status


def test_an_unfinished_body_is_not_whole() -> None:
    assert read([BODY[:-2]]) == (b"Wavegate\r\n\x00 ok", len(BODY) - 2, False)


def test_without_a_coding_the_body_is_what_was_sent() -> None:
    body = bytearray(b"abc")
    assert decoded(body, "", 3) is body
    assert decoded(body, " Identity ", 3) is body


@given(st.binary(max_size=200))
def test_inflating_undoes_compressing(data: bytes) -> None:
    raw = zlib.compressobj(wbits=-15)
    raw_deflate = raw.compress(data) + raw.flush()
    for coding, packed in (("gzip", gzip.compress(data)), ("deflate", zlib.compress(data)), ("deflate", raw_deflate)):
        assert decoded(packed, coding, 200) == data


def test_a_bomb_is_refused_before_memory_is_spent() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(HttpError) as refused:
        decoded(bomb, "gzip", 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < 8 << 20
