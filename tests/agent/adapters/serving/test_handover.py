"""Giving connections away: whatever dies in the middle, unread bytes are answered by somebody."""

import socket
from collections.abc import Iterator

import pytest

from wavegate_agent.adapters.channel import Channel, pair
from wavegate_agent.adapters.serving.connections import Connection, State
from wavegate_agent.adapters.serving.handover import Giver, Taker
from wavegate_agent.core.predictions import Prediction


class World:
    """A giver and a taker with clients, driven by hand."""

    def __init__(self) -> None:
        ours, theirs = pair()
        self.back: list[Connection] | None = None
        self.complete: list[int] = []
        self.taken: dict[int, socket.socket] = {}
        self.heads: dict[int, bytes] = {}
        self.ring: list[Prediction] = []
        self.fresh: list[Prediction] = []
        self.settled = 0
        self.giver = Giver(ours, on_complete=self.complete.append, on_lost=self._lost)
        self.taker = Taker(
            Channel(theirs),
            on_connections=self._take,
            on_ring=self.ring.extend,
            on_prediction=self.fresh.append,
            on_settled=self._settle,
        )
        self.clients: list[socket.socket] = []
        self.served: list[Connection] = []

    def _lost(self, back: list[Connection]) -> None:
        self.back = back

    def _settle(self) -> None:
        self.settled += 1

    def _take(self, items: list[tuple[socket.socket, int, bytes]]) -> None:
        for sock, number, head in items:
            self.taken[number], self.heads[number] = sock, head

    def connect(self, count: int) -> list[Connection]:
        made = []
        for _ in range(count):
            client, served = socket.socketpair()
            self.clients.append(client)
            made.append(Connection(served, len(self.clients)))
        self.served += made
        return made

    def close(self) -> None:
        self.taker.close()
        self.giver.close()
        for sock in (*self.clients, *self.taken.values()):
            sock.close()
        for connection in self.served:
            connection.release()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_everything_moves_and_the_giver_lets_go(world: World) -> None:
    world.giver.give_ring([Prediction("a", 1, 1, b"1234")])
    connections = world.connect(150)
    connections[0].head_bytes += b"GET /half"
    world.giver.give(connections, left=0)
    world.taker.on_readable()
    assert ([p.id for p in world.ring], len(world.taken), world.heads[1], world.settled) == (
        ["a"],
        150,
        b"GET /half",
        1,
    )
    world.giver.on_readable()
    assert (world.complete, world.giver.ended, world.back) == ([0], True, None)
    assert all(connection.state is State.CLOSED for connection in connections)
    world.clients[7].sendall(b"still there")
    assert world.taken[8].recv(100) == b"still there"
    world.taker.on_readable()
    assert world.taker.ended


def test_the_taker_dies_before_it_answers_for_them(world: World) -> None:
    connections = world.connect(3)
    world.giver.give(connections, left=0)
    world.clients[1].sendall(b"unread")
    world.taker.close()
    world.giver.on_readable()
    assert world.back == connections
    assert world.complete == []
    assert connections[1].sock.recv(100) == b"unread"


def test_what_the_taker_began_to_read_is_not_taken_back(world: World) -> None:
    connections = world.connect(2)
    world.giver.give(connections, left=0)
    world.taker.claim(1)
    world.taker.close()
    world.giver.on_readable()
    assert world.back == [connections[1]]
    assert connections[0].state is State.CLOSED


def test_a_busy_connection_follows_after_its_answer(world: World) -> None:
    idle, busy = world.connect(2)
    world.giver.give([idle], left=1)
    world.taker.on_readable()
    world.giver.on_readable()
    assert (world.complete, world.giver.ended) == ([1], False)
    world.giver.give_prediction(Prediction("late", 1, 1, b"1234"))
    world.giver.give([busy], left=0)
    world.taker.on_readable()
    world.giver.on_readable()
    assert ([p.id for p in world.fresh], sorted(world.taken), world.complete) == (["late"], [1, 2], [1, 0])
    assert world.giver.ended
    assert world.settled == 1


def test_an_answer_for_an_earlier_round_does_not_cover_a_later_one(world: World) -> None:
    first, second = world.connect(2)
    world.giver.give([second], left=1)
    world.taker.on_readable()
    world.giver.give([first], left=0)
    world.giver.on_readable()
    assert (second.state, first.state) == (State.CLOSED, State.HEAD)
    world.taker.close()
    world.giver.on_readable()
    assert world.back == [first]


def test_the_giver_dies_and_the_taker_keeps_what_it_has(world: World) -> None:
    world.giver.give(world.connect(1), left=5)
    world.giver.channel.close()
    world.taker.on_readable()
    assert (len(world.taken), world.taker.ended, world.settled) == (1, True, 1)


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x81\xa4type\xa4what"])
def test_garbage_ends_the_hand_over_on_both_sides(world: World, garbage: bytes) -> None:
    connections = world.connect(1)
    world.giver.give(connections, left=0)
    world.taker.channel.send(garbage)
    world.giver.on_readable()
    assert world.back == connections
    other = World()
    other.giver.channel.send(garbage)
    other.taker.on_readable()
    assert (other.taker.ended, other.settled) == (True, 1)
    other.close()
