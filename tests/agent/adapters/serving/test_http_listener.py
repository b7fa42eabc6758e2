"""Connections on a real worker: keep-alive, old clients, slow clients, hostile clients."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models import linear_version
from tests.support.serving import Raw, request_body, running_host
from wavegate_agent.adapters.serving import http_listener
from wavegate_agent.adapters.serving.connections import Connection, Response
from wavegate_agent.adapters.serving.http_listener import HttpListener, Verdict

POST = b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("worker")
    with running_host(directory) as host:
        host.start_live(*linear_version(directory, 1))
        yield directory / "infer.sock"


def framed(body: bytes, *, extra: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = POST.replace(b"1.1", version, 1) + extra
    return head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_many_requests_on_one_connection(address: Path) -> None:
    with Raw(address) as raw:
        for _ in range(20):
            raw.send(framed(request_body()))
            status, fields, _ = raw.read()
            assert (status, fields["connection"]) == (200, "keep-alive")


def test_pipelined_requests_are_answered_in_order(address: Path) -> None:
    with Raw(address) as raw:
        raw.send(framed(request_body(request_id="1")) + framed(request_body(request_id="2")))
        assert b'"id":"1"' in raw.read()[2]
        assert b'"id":"2"' in raw.read()[2]


def test_byte_by_byte(address: Path) -> None:
    with Raw(address) as raw:
        for byte in framed(request_body()):
            raw.send(bytes([byte]))
        assert raw.read()[0] == 200


@pytest.mark.parametrize(("extra", "closes"), [(b"", True), (b"Connection: keep-alive\r\n", False)])
def test_http_1_0(address: Path, extra: bytes, closes: bool) -> None:
    with Raw(address) as raw:
        raw.send(framed(request_body(), extra=extra, version=b"1.0"))
        assert raw.read()[0] == 200
        if closes:
            assert raw.ended()
        else:
            assert raw.get("/v2/health/live")[0] == 200


def test_expect_continue(address: Path) -> None:
    body = request_body()
    with Raw(address) as raw:
        raw.send(POST + f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert raw.read()[0] == 100
        raw.send(body)
        assert raw.read()[0] == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n", 413),
        (POST + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 100_000, 413),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
    ],
)
def test_what_cannot_be_served_is_answered_and_closed(address: Path, data: bytes, status: int) -> None:
    with Raw(address) as raw:
        raw.send(data)
        got, fields, body = raw.read()
        assert (got, fields["connection"]) == (status, "close")
        assert b'"code":"' in body
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.ended()


def test_a_client_that_leaves_in_the_middle_harms_nobody(address: Path) -> None:
    for data in (b"", POST, framed(request_body())[:-5], framed(request_body())):
        with Raw(address) as raw:
            raw.send(data)
    with Raw(address) as raw:
        assert raw.get("/v2/health/ready")[0] == 200


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x;note=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_chunked_bodies_are_read_and_the_next_request_is_left_alone(address: Path, size: int) -> None:
    with Raw(address) as raw:
        raw.send(chunked(request_body(request_id="1"), size) + framed(request_body(request_id="2")))
        assert b'"id":"1"' in raw.read()[2]
        assert b'"id":"2"' in raw.read()[2]


def test_a_chunked_body_byte_by_byte(address: Path) -> None:
    with Raw(address) as raw:
        for byte in chunked(request_body(), 30):
            raw.send(bytes([byte]))
        assert raw.read()[0] == 200


class Echo:
    """Answers at once, or holds."""

    def __init__(self) -> None:
        self.hold = False

    def quick(self, connection: Connection) -> Response | Verdict:
        if self.hold:
            return Verdict.HOLD
        return Response(200, [], [b"ok"], keep_alive=True)

    def work(self, connection: Connection) -> Response:
        raise AssertionError("nothing goes to the pool here")


@pytest.fixture
def listener() -> Iterator[HttpListener]:
    made = HttpListener()
    yield made
    made.close()


def accepted(listener: HttpListener) -> socket.socket:
    ours, theirs = socket.socketpair()
    listener.adopt(theirs)
    ours.settimeout(5)
    return ours


def test_before_a_version_is_there_the_answer_says_so(listener: HttpListener) -> None:
    with accepted(listener) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        listener.run_once(0)
        assert client.recv(1000).startswith(b"HTTP/1.1 503")


def test_a_held_request_is_answered_when_released(listener: HttpListener) -> None:
    echo = Echo()
    listener.answer_with(echo)
    echo.hold = True
    with accepted(listener) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        listener.run_once(0)
        assert listener.unfinished == 1
        echo.hold = False
        listener.release_held()
        assert client.recv(1000).endswith(b"ok")


def test_control_comes_after_the_connections_of_its_batch(listener: HttpListener) -> None:
    """The fault that once killed a worker: a hand-over in the same batch as a readable client."""
    agent, control = socket.socketpair()
    listener.answer_with(Echo())
    seen: list[list[Connection]] = []

    def hand_over() -> None:
        listener.unwatch(control)
        seen.append(listener.release_idle())

    with accepted(listener) as client, agent, control:
        listener.watch(control, hand_over)
        agent.sendall(b"x")
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        listener.run_once(0)
        assert client.recv(1000).endswith(b"ok")
        assert [len(batch) for batch in seen] == [1]
        listener.take_back(seen[0])
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        listener.run_once(0)
        assert client.recv(1000).endswith(b"ok")


def test_a_request_that_does_not_arrive_in_time_is_answered_and_dropped(
    listener: HttpListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegate_agent.adapters.serving.connections.READ_TIMEOUT_S", -1.0)
    monkeypatch.setattr(http_listener, "_TICK_S", -1.0)
    listener.answer_with(Echo())
    with accepted(listener) as client:
        client.sendall(b"GET / HT")
        listener.run_once(0)
        listener.run_once(0)
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_full_house_lets_idle_guests_go_first(
    listener: HttpListener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(http_listener, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(http_listener, "_EVICT_IDLE_S", 0.0)
    listener.answer_with(Echo())
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(tmp_path / "s"))
    door.listen()
    listener.listen([door])
    with Raw(tmp_path / "s") as first:
        listener.run_once(1)
        with Raw(tmp_path / "s") as second:
            listener.run_once(1)
            assert first.ended()
            second.send(b"GET / HTTP/1.1\r\n\r\n")
            listener.run_once(1)
            assert second.read()[2] == b"ok"
