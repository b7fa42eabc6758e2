"""Chunks: any order, any duplication, any damage; the file comes out whole or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_shared.chunks import (
    CHUNK_BYTES,
    FRAME_BYTES,
    Bitmap,
    Chunk,
    Form,
    Frame,
    chunk_hash,
    cut,
    offsets,
    verify_chunk,
)
from wavegate_shared.errors import TransferError, TrustError


@given(st.binary(max_size=2000), st.integers(1, 300), st.integers(1, 97), st.randoms())
def test_a_file_cut_and_put_together_in_any_order_is_the_same(
    data: bytes, size: int, block: int, chance: object
) -> None:
    blocks = [data[at : at + block] for at in range(0, len(data), block)]
    pieces = list(cut(blocks, size))
    chunks = [Chunk(chunk_hash(piece), len(piece)) for piece in pieces]
    order = list(range(len(pieces))) * 2
    chance.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    whole, seen = bytearray(len(data)), Bitmap(len(pieces))
    for index in order:
        verify_chunk(chunks[index], pieces[index])
        start = offsets(chunks)[index]
        whole[start : start + len(pieces[index])] = pieces[index]
        seen.set(index)
    assert bytes(whole) == data
    assert seen.complete
    assert all(len(piece) == size for piece in pieces[:-1])


@given(st.binary(max_size=500), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_frame_survives_the_wire(payload: bytes, xfer: int, index: int) -> None:
    frame = Frame(Form.RAW, xfer, index, 9, 17, payload)
    assert Frame.decode(frame.encode()) == frame


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_flipped_bit_anywhere_in_the_payload_is_noticed(payload: bytes, data: st.DataObject) -> None:
    wire = bytearray(Frame(Form.RAW, 1, 2, 3, 0, payload).encode())
    at = data.draw(st.integers(len(wire) - len(payload), len(wire) - 1))
    wire[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(TransferError) as caught:
        Frame.decode(bytes(wire))
    assert caught.value.code == "chunk_damaged"


def test_a_full_frame_fits_the_strictest_broker() -> None:
    assert len(Frame(Form.RAW, 1, 2, 3, 0, bytes(CHUNK_BYTES)).encode()) == FRAME_BYTES < 128 * 1024


@pytest.mark.parametrize("data", [b"", b"WG", b"XX" + bytes(30), bytes(FRAME_BYTES + 1)])
def test_what_is_not_a_frame_is_refused(data: bytes) -> None:
    with pytest.raises(TransferError):
        Frame.decode(data)


def test_a_chunk_that_is_not_the_listed_one_is_refused() -> None:
    chunk = Chunk(chunk_hash(b"right"), 5)
    for wrong in (b"wrong", b"right ", b""):
        with pytest.raises(TransferError):
            verify_chunk(chunk, wrong)


@given(st.sets(st.integers(0, 99)))
def test_the_bitmap_remembers_exactly_what_was_set(done: set[int]) -> None:
    bitmap = Bitmap(100)
    for index in done:
        bitmap.set(index)
    again = Bitmap(100, bitmap.to_bytes())
    assert set(again.missing()) == set(range(100)) - done
    for index in done:
        again.clear(index)
    assert again.missing() == list(range(100))


def test_a_bitmap_of_another_length_is_refused() -> None:
    with pytest.raises(TrustError):
        Bitmap(100, b"\x00")
    with pytest.raises(IndexError):
        Bitmap(3).set(3)
