"""Mutated bytes from a peer always end as a TrustError, never as another exception."""

import random
from collections.abc import Callable

import msgspec
import pytest

from tests.support.tuf_world import DEVICE, World, make_manifest, slot_of
from wavegate_shared import wire
from wavegate_shared.assignment import ASSIGNMENT_TYPE, Assignment
from wavegate_shared.dsse import open_signed
from wavegate_shared.enrolment import TokenParts, format_token, parse_token
from wavegate_shared.errors import TrustError
from wavegate_shared.manifest import decode_manifest, encode_manifest

WORLD = World()
DEEP = b"[" * 60_000
PIECES = (
    b'"',
    b"[",
    b"{",
    b"null",
    b"-1",
    b"1e999",
    b"\\ud800",
    b"9" * 30,
    b"}",
    b"]",
    b":0,",
    b"\xff",
    b"\xed\xa0\x80",
)


def open_assignment(data: bytes) -> object:
    return open_signed(data, Assignment, ASSIGNMENT_TYPE, [WORLD.signers["director"].public_key])


def read_token(data: bytes) -> object:
    return parse_token(data.decode("latin-1"))


HELLO = wire.encode(wire.Hello(boot=1, agent_version="1", facts={"cpu_count": 4}))
REPORT = wire.encode(wire.SignedReport(boot=1, seq=1, envelope=msgspec.Raw(b'{"payload":"e30="}')))
STORED = wire.encode(wire.Stored(boot=1, seq=1))
TOKEN = format_token(TokenParts(DEVICE, b"s" * 32, b"c" * 32)).encode()
PARSERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (open_assignment, WORLD.assign(slot_of(b"x"))),
    (decode_manifest, encode_manifest(make_manifest())),
    (wire.decode_up, HELLO),
    (wire.decode_up, REPORT),
    (wire.decode_down, STORED),
    (read_token, TOKEN),
]
NAMES = ["assignment", "manifest", "hello", "report", "stored", "token"]


def mutated(seed: bytes, rng: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randint(1, 20)]
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                data[at:at] = data[: rng.randint(1, 50)]
            case _:
                del data[at:]
    return bytes(data)


@pytest.mark.parametrize(("parse", "seed"), PARSERS, ids=NAMES)
def test_mutated_bytes(parse: Callable[[bytes], object], seed: bytes) -> None:
    rng, refused = random.Random(7), 0
    for _ in range(3000):
        try:
            parse(mutated(seed, rng))
        except TrustError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(("parse", "seed"), PARSERS[:5], ids=NAMES[:5])
def test_deep_nesting(parse: Callable[[bytes], object], seed: bytes) -> None:
    head = seed[: seed.index(b"{") + 1]
    with pytest.raises(TrustError):
        parse(head + b'"unknown":' + DEEP)


def test_broken_utf8_in_a_field() -> None:
    with pytest.raises(TrustError, match="message_malformed"):
        wire.decode_up(HELLO.replace(b'"1"', b'"\xff"'))
