"""One connection reads exactly one request."""

import socket
from collections.abc import Iterator

import pytest

from wavegate_agent.adapters.serving.connections import Connection, Response, State, error_response
from wavegate_agent.core.http1 import HttpError

REQUEST = b"POST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Connection]]:
    client, served = socket.socketpair()
    connection = Connection(served, 1)
    yield client, connection
    client.close()
    connection.release()


def plenty() -> int:
    return 1 << 30


def test_it_stops_at_the_end_of_a_request(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    client.sendall(REQUEST + b"GET /next HTTP/1.1\r\n\r\n")
    assert connection.read(100, plenty)
    assert bytes(connection.body) == b"body"
    assert connection.sock.recv(1000, socket.MSG_PEEK) == b"GET /next HTTP/1.1\r\n\r\n"


def test_any_cut_gives_the_same_request(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    for cut in range(1, len(REQUEST)):
        client.sendall(REQUEST[:cut])
        assert not connection.read(100, plenty)
        client.sendall(REQUEST[cut:])
        assert connection.read(100, plenty)
        assert connection.head is not None
        assert (connection.head.path, bytes(connection.body)) == ("/x", b"body")
        connection.next_request()


def test_a_head_begun_elsewhere_is_finished_here(ends: tuple[socket.socket, Connection]) -> None:
    client, first = ends
    client.sendall(REQUEST[:10])
    first.read(100, plenty)
    second = Connection(first.sock.dup(), 2, bytes(first.head_bytes))
    assert second.deadline is not None
    client.sendall(REQUEST[10:])
    assert second.read(100, plenty)
    second.release()


def test_limits_on_one_body_and_on_all(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    client.sendall(REQUEST)
    with pytest.raises(HttpError) as large:
        connection.read(3, plenty)
    connection.next_request()
    client.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n")
    connection.sock.recv(4)
    with pytest.raises(HttpError) as crowded:
        connection.read(1 << 30, lambda: 10)
    assert (large.value.status, crowded.value.status) == (413, 503)


def test_an_answer_larger_than_the_socket_goes_out_in_steps(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    told: list[bool] = []
    response = Response(200, [], [b"x" * 3_000_000, b"end"], keep_alive=True, written=told.append)
    assert not connection.start_writing(response)
    got = b""
    client.settimeout(5)
    while not got.endswith(b"end"):
        got += client.recv(1 << 20)
        if connection.state is State.WRITING and not told:
            connection.write()
    assert told == [True]


def test_a_client_that_left_is_told_to_the_counter(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    told: list[bool] = []
    client.close()
    response = Response(200, [], [b"x"], keep_alive=True, written=told.append)
    assert not connection.start_writing(response)
    assert (told, connection.state) == ([False], State.CLOSED)


def test_the_client_sees_the_end_although_another_process_holds_a_copy(ends: tuple[socket.socket, Connection]) -> None:
    client, connection = ends
    with connection.sock.dup():
        connection.close()
        client.settimeout(5)
        assert client.recv(10) == b""


def test_an_error_has_text_and_code() -> None:
    response = error_response(404, "not_found", "no", keep_alive=False)
    assert (response.status, response.close) == (404, True)
    assert bytes(response.pieces[1]) == b'{"error":"no","code":"not_found"}'
