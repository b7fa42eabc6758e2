"""Chunks: how an artifact is cut, named, framed and ticked off.

An artifact is cut into pieces of at most `CHUNK_BYTES`; the signed manifest lists (hash, length) of each piece of the
plain file. A chunk is checked before it is written, so any source will do. Receivers rely only on the listed lengths, so
a later release can cut along tensor boundaries without a change here.

Frame on the wire (`d/<dev>/c`, big-endian), 24 bytes of header:
    magic 'WG' | version 1 | form | xfer u32 | index u32 | total u32 | crc32 u32 of the payload | offset u32 | payload
`form` says what the payload is: RAW (a plain chunk), DOCUMENT (part of a metadata document, `offset` into it, `total` its
length) or MISSING (the document does not exist). Coded forms (byte planes, deltas) get numbers of their own later.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from wavegate_shared.errors import TransferError, TrustError

__all__ = [
    "CHUNK_BYTES",
    "FRAME_BYTES",
    "Bitmap",
    "Chunk",
    "Form",
    "Frame",
    "chunk_hash",
    "cut",
    "offsets",
    "verify_chunk",
]

_HEADER = struct.Struct(">2sBBIIIII")
FRAME_BYTES = 120 * 1024
"""A whole frame, header included: below the 128 KiB packet limit of managed brokers, above the 64 KiB where per-message
cost starts to show."""
CHUNK_BYTES = FRAME_BYTES - _HEADER.size


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """One piece of the plain file. Attributes: hash (first 16 bytes of SHA-256, hex), size_bytes."""

    hash: str
    size_bytes: int


class Form(IntEnum):
    """What a frame's payload is."""

    RAW = 1
    DOCUMENT = 2
    MISSING = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the `c` topic; see the module's docstring."""

    form: Form
    xfer: int
    index: int
    total: int
    offset: int
    payload: bytes

    def encode(self) -> bytes:
        """The wire form; `Frame.decode(f.encode()) == f`."""
        crc = zlib.crc32(self.payload)
        return _HEADER.pack(b"WG", 1, self.form, self.xfer, self.index, self.total, crc, self.offset) + self.payload

    @classmethod
    def decode(cls, data: bytes) -> "Frame":
        """Read a frame. Raises TransferError `chunk_damaged`."""
        if len(data) < _HEADER.size or len(data) > FRAME_BYTES:
            raise TransferError("chunk_damaged", f"frame of {len(data)} bytes")
        magic, version, form, xfer, index, total, crc, offset = _HEADER.unpack_from(data)
        payload = bytes(data[_HEADER.size :])
        if magic != b"WG" or version != 1 or form not in Form._value2member_map_ or zlib.crc32(payload) != crc:
            raise TransferError("chunk_damaged", "bad frame header or checksum")
        return cls(Form(form), xfer, index, total, offset, payload)


def chunk_hash(data: bytes) -> str:
    """The listed hash of one chunk: the first 16 bytes of its SHA-256, hex."""
    return hashlib.sha256(data).digest()[:16].hex()


def cut(pieces: Iterable[bytes], size_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Regroup a stream of bytes into chunks of `size_bytes` (the last one shorter)."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= size_bytes:
            yield bytes(buffer[:size_bytes])
            del buffer[:size_bytes]
    if buffer:
        yield bytes(buffer)


def offsets(chunks: Sequence[Chunk]) -> list[int]:
    """Where each chunk starts in the plain file."""
    starts, at = [], 0
    for chunk in chunks:
        starts.append(at)
        at += chunk.size_bytes
    return starts


def verify_chunk(chunk: Chunk, data: bytes) -> None:
    """Raises TransferError `chunk_damaged` unless `data` is exactly the listed chunk."""
    if len(data) != chunk.size_bytes or chunk_hash(data) != chunk.hash:
        raise TransferError("chunk_damaged", f"{len(data)} bytes do not match the manifest")


class Bitmap:
    """Which chunks are already on disk, verified. Chunk i is bit (i % 8) of byte i // 8."""

    __slots__ = ("_bits", "size")

    def __init__(self, size: int, data: bytes = b"") -> None:
        if data and len(data) != (size + 7) // 8:
            raise TrustError("message_malformed", f"bitmap of {len(data)} bytes for {size} chunks")
        self.size = size
        self._bits = bytearray(data or bytes((size + 7) // 8))

    def set(self, index: int) -> None:
        """Tick off chunk `index`. Raises IndexError outside 0..size-1."""
        self._check(index)
        self._bits[index // 8] |= 1 << (index % 8)

    def clear(self, index: int) -> None:
        """Untick chunk `index`. Raises IndexError outside 0..size-1."""
        self._check(index)
        self._bits[index // 8] &= ~(1 << (index % 8)) & 0xFF

    def __contains__(self, index: int) -> bool:
        return 0 <= index < self.size and bool(self._bits[index // 8] >> (index % 8) & 1)

    def missing(self) -> list[int]:
        """The chunks still to fetch, in order."""
        return [index for index in range(self.size) if index not in self]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing()

    def to_bytes(self) -> bytes:
        """The bits, (size + 7) // 8 bytes."""
        return bytes(self._bits)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise IndexError(f"chunk {index} of {self.size}")
