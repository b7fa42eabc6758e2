import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from tests.support.fleet_db import START
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store.artifacts import ChunkTable
from wavegate_server.adapters.trust.director import Director
from wavegate_server.services.delivery import Delivery
from wavegate_shared.assignment import TIME_TYPE, TimeDocument
from wavegate_shared.chunks import CHUNK_BYTES, Chunk, Form, Frame, chunk_hash, cut, offsets, verify_chunk
from wavegate_shared.dsse import open_signed
from wavegate_shared.errors import TransferError
from wavegate_shared.topics import Topics
from wavegate_shared.wire import ChunkRequest, DocumentRequest, TimeAnswer, TimeRequest, decode_down

PLAIN = os.urandom(3 * CHUNK_BYTES + 1000)
SHA256 = hashlib.sha256(PLAIN).hexdigest()
PIECES = [Chunk(chunk_hash(piece), len(piece)) for piece in cut([PLAIN])]
DOCUMENT = b"x" * CHUNK_BYTES + b"end"


@dataclass
class PageContext:
    """A delivery and what it sent."""

    delivery: Delivery
    sent: list[tuple[str, bytes, int]]
    time_key: Any
    clock: list[float] = field(default_factory=lambda: [0.0])

    @property
    def frames(self) -> list[Frame]:
        return [Frame.decode(payload) for _, payload, _ in self.sent]


class Index:
    """Knows one artifact."""

    def find(self, sha256: str) -> ChunkTable | None:
        return ChunkTable(tuple(PIECES), tuple(offsets(PIECES))) if sha256 in (SHA256, "9" * 64) else None


class Library:
    """Has one document."""

    def read(self, name: str) -> bytes | None:
        return DOCUMENT if name == "metadata/1.root.json" else None


@pytest.fixture
def desk(tmp_path: Path) -> PageContext:
    objects = Objects(tmp_path / "objects")
    (tmp_path / "plain").write_bytes(PLAIN)
    objects.put_file(tmp_path / "plain")
    sent: list[tuple[str, bytes, int]] = []
    clock = [0.0]
    signer = CryptoSigner.generate_ecdsa()
    delivery = Delivery(
        objects,
        Library(),
        Director(CryptoSigner.generate_ecdsa(), signer),
        lambda topic, payload, qos: sent.append((topic, payload, qos)),
        Index(),
        Topics(),
        now=lambda: START,
        monotonic=lambda: clock[0],
    )
    return PageContext(delivery, sent, signer.public_key, clock)


def test_chunks_come_as_frames_on_the_devices_own_topic(desk: PageContext) -> None:
    desk.delivery.handle("locker-01", ChunkRequest(xfer=7, sha256=SHA256, indexes=[3, 0]))

    assert {(topic, qos) for topic, _, qos in desk.sent} == {("wavegate/v1/d/locker-01/c", 0)}
    assert [(f.form, f.xfer, f.index, f.total) for f in desk.frames] == [
        (Form.RAW, 7, 3, 4),
        (Form.RAW, 7, 0, 4),
    ]
    for frame in desk.frames:
        verify_chunk(PIECES[frame.index], frame.payload)


def test_all_chunks_together_are_the_file(desk: PageContext) -> None:
    desk.delivery.handle("d", ChunkRequest(xfer=1, sha256=SHA256, indexes=[0, 1, 2, 3]))

    assert b"".join(frame.payload for frame in desk.frames) == PLAIN


@pytest.mark.parametrize("sha256", ["0" * 64, "../../../etc/passwd", "9" * 64])
def test_what_is_not_there_is_said_once(desk: PageContext, sha256: str) -> None:
    desk.delivery.handle("d", ChunkRequest(xfer=5, sha256=sha256, indexes=[0, 1, 2]))

    assert [(frame.form, frame.xfer) for frame in desk.frames] == [(Form.MISSING, 5)]


def test_numbers_out_of_range_are_passed_over(desk: PageContext) -> None:
    desk.delivery.handle("d", ChunkRequest(xfer=5, sha256=SHA256, indexes=[99, 0, 0]))

    assert [frame.index for frame in desk.frames] == [0]
    assert desk.delivery.refused == 1


def test_a_document_comes_in_parts(desk: PageContext) -> None:
    desk.delivery.handle("d", DocumentRequest(xfer=2, name="metadata/1.root.json"))

    assert [(f.form, f.offset, f.total) for f in desk.frames] == [
        (Form.DOCUMENT, 0, len(DOCUMENT)),
        (Form.DOCUMENT, CHUNK_BYTES, len(DOCUMENT)),
    ]
    assert b"".join(frame.payload for frame in desk.frames) == DOCUMENT


@pytest.mark.parametrize(
    ("offset", "limit", "part"),
    [(5, 10, DOCUMENT[5:15]), (CHUNK_BYTES, 1 << 20, b"end"), (len(DOCUMENT), 10, b""), (10**12, 10, b"")],
)
def test_a_part_of_a_document(desk: PageContext, offset: int, limit: int, part: bytes) -> None:
    request = DocumentRequest(xfer=2, name="metadata/1.root.json", offset=offset, max_bytes=limit)
    desk.delivery.handle("d", request)

    (frame,) = desk.frames
    assert (frame.form, frame.offset, frame.payload) == (Form.DOCUMENT, min(offset, len(DOCUMENT)), part)


def test_a_document_nobody_has(desk: PageContext) -> None:
    desk.delivery.handle("d", DocumentRequest(xfer=2, name="metadata/../keys/root-1.pem"))

    assert [frame.form for frame in desk.frames] == [Form.MISSING]


def test_the_time_is_signed_with_the_nonce(desk: PageContext) -> None:
    desk.delivery.handle("d", TimeRequest(nonce="n" * 16))

    ((topic, payload, qos),) = desk.sent
    answer = decode_down(payload)
    assert isinstance(answer, TimeAnswer)
    document = open_signed(bytes(answer.envelope), TimeDocument, TIME_TYPE, [desk.time_key])
    assert (topic, qos, document.nonce, document.time) == ("wavegate/v1/d/d/cmd", 1, "n" * 16, START)


def test_a_device_gone_wild_is_held_back_and_the_others_are_not(desk: PageContext) -> None:
    for _ in range(200):
        desk.delivery.handle("wild", ChunkRequest(xfer=1, sha256=SHA256, indexes=[0, 1, 2, 3]))
    served = len(desk.sent)
    desk.delivery.handle("calm", ChunkRequest(xfer=1, sha256=SHA256, indexes=[0]))
    calm = len(desk.sent) - served
    desk.clock[0] = 1.0
    desk.delivery.handle("wild", ChunkRequest(xfer=2, sha256=SHA256, indexes=[0]))

    assert sum(len(frame.payload) for frame in desk.frames[:served]) < 33 << 20
    assert desk.delivery.refused > 0
    assert calm == 1
    assert desk.frames[-1].xfer == 2


def test_a_lost_connection_is_not_an_error(desk: PageContext) -> None:
    def broken(topic: str, payload: bytes, qos: int) -> None:
        raise TransferError("not_connected")

    desk.delivery.send = broken
    desk.delivery.handle("d", DocumentRequest(xfer=2, name="metadata/1.root.json"))

    assert desk.sent == []
