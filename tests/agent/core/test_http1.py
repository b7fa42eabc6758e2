"""HTTP heads: what is read, what is refused, and how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_agent.core.http1 import (
    MAX_HEAD_BYTES,
    HttpError,
    find_end,
    parse_request,
    parse_response,
    render_request,
    render_response,
)


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_a_request_is_read() -> None:
    request = parse_request(head("POST /v2/models/m%20x/infer?a=1 HTTP/1.1", "Host: x", "Content-Length: 7"))
    assert (request.method, request.path, request.length, request.keep_alive) == (
        "POST",
        "/v2/models/m x/infer",
        7,
        True,
    )


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "Keep-Alive", True)],
)
def test_keep_alive_by_version_and_wish(version: str, connection: str, stays: bool) -> None:
    request = parse_request(head(f"GET / HTTP/{version}", *([f"Connection: {connection}"] if connection else [])))
    assert request.keep_alive is stays


def test_continue_is_wanted_only_by_http_1_1() -> None:
    assert parse_request(head("POST / HTTP/1.1", "Expect: 100-Continue")).wants_continue
    assert not parse_request(head("POST / HTTP/1.0", "Expect: 100-continue")).wants_continue


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (400, ["GET /"]),
        (400, ["GET nowhere HTTP/1.1"]),
        (400, ["GE T / HTTP/1.1"]),
        (505, ["GET / HTTP/2.0"]),
        (400, ["GET / HTTP/1.1", "no colon"]),
        (400, ["GET / HTTP/1.1", "Space : x"]),
        (400, ["GET / HTTP/1.1", " folded: x"]),
        (400, ["GET / HTTP/1.1", "Content-Length: -1"]),
        (400, ["GET / HTTP/1.1", "Content-Length: 1e3"]),
        (400, ["GET / HTTP/1.1", "Content-Length: 1", "Content-Length: 2"]),
        (400, ["GET / HTTP/1.1", "Expect: tea"]),
        (400, ["POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 3"]),
        (400, ["POST / HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]),
        (400, ["POST / HTTP/1.0", "Transfer-Encoding: chunked"]),
        (501, ["POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"]),
        (501, ["POST / HTTP/1.1", "Transfer-Encoding: identity"]),
        (501, ["POST / HTTP/1.1", "Transfer-Encoding: xchunked"]),
        (431, ["GET / HTTP/1.1", *[f"X-{n}: 1" for n in range(101)]]),
        (431, ["GET / HTTP/1.1", "X: " + "a" * MAX_HEAD_BYTES]),
        (400, ["GET / HTTP/1.1", "X: a\nContent-Length: 5"]),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(status: int, lines: list[str]) -> None:
    with pytest.raises(HttpError) as refused:
        parse_request(head(*lines))
    assert refused.value.status == status


def test_a_chunked_request_has_no_length() -> None:
    found = parse_request(head("POST / HTTP/1.1", "Transfer-Encoding: Chunked"))
    assert (found.chunked, found.length) == (True, 0)
    assert not parse_request(head("POST / HTTP/1.1", "Content-Length: 3")).chunked


def test_the_end_is_found_across_pieces() -> None:
    whole = head("GET / HTTP/1.1", "A: b")
    for cut in range(len(whole)):
        assert find_end(whole[:cut]) == -1
        assert find_end(whole + b"body", cut) == len(whole)


def test_what_is_written_is_read_back() -> None:
    response = parse_response(render_response(503, [("X-A", "b")], 12, keep_alive=False))
    assert (response.status, response.length, response.keep_alive, response.fields["x-a"]) == (503, 12, False, "b")
    request = parse_request(render_request("POST", "/x", "host", [("X-A", "b")], 3))
    assert (request.path, request.length, request.fields["x-a"]) == ("/x", 3, "b")


@pytest.mark.parametrize("line", ["HTTP/1.1", "HTTP/1.1 2xx OK", "nonsense"])
def test_an_answer_that_is_not_http_is_refused(line: str) -> None:
    with pytest.raises(HttpError):
        parse_response(head(line, "Content-Length: 0"))


def test_an_answer_without_length_cannot_be_framed() -> None:
    with pytest.raises(HttpError):
        parse_response(head("HTTP/1.1 200 OK"))


def status(data: bytes) -> int:
    try:
        parse_request(data)
    except HttpError as refused:
        return refused.status
    return 200


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    assert status(data + b"\r\n\r\n") in (200, 400, 411, 431, 505)
