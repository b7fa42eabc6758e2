"""Bodies of requests in their codings: chunked framing read piece by piece, gzip and deflate inflated under a cap.

Both stop exactly where the body ends and never hold more than they may: a chunked reader says how many of the bytes it was
shown belong to the body, so that the rest stays in the kernel; an inflater stops before it makes a byte too many.
Not here: sockets, heads (`http1.py`).

Source: RFC 9112 section 7.1 (chunked), RFC 9110 section 8.4 (content codings).
"""

import enum
import re
import zlib

from wavegate_agent.core.http1 import HttpError

__all__ = ["ChunkedBody", "decoded"]

_MAX_LINE_BYTES = 256
"""A chunk's size with its extensions."""
_MAX_TRAILER_BYTES = 8 * 1024
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[^\r\n]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n")
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's word for each coding: a gzip header, a zlib header."""
_RAW_DEFLATE = -15


class _Part(enum.Enum):
    SIZE = "size"
    DATA = "data"
    DATA_END = "data_end"
    TRAILER = "trailer"
    DONE = "done"


class ChunkedBody:
    """A chunked body in the making. Property: any cut of the bytes into pieces gives the same body and the same rest.

    Attributes:
        data: the body so far, without framing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.data = bytearray()
        self._max_bytes = max_bytes
        self._part = _Part.SIZE
        self._line = bytearray()
        self._left = 0
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        """Whether the last byte of the body was read."""
        return self._part is _Part.DONE

    def feed(self, seen: bytes | memoryview) -> int:
        """Read on; how many of the bytes belong to this body. What is behind them belongs to the next request.

        Raises:
            HttpError: 400 for broken framing, 413 for a body above `max_bytes`, said before it is read.
        """
        view, at = memoryview(seen), 0
        while at < len(view) and not self.done:
            at += self._data(view[at:]) if self._part is _Part.DATA else self._text(view[at:])
        return at

    def _data(self, view: memoryview) -> int:
        taken = min(self._left, len(view))
        self.data += view[:taken]
        self._left -= taken
        if not self._left:
            self._part = _Part.DATA_END
        return taken

    def _text(self, view: memoryview) -> int:
        """Read up to the end of a line and act on it."""
        limit = _MAX_LINE_BYTES if self._part is not _Part.TRAILER else _MAX_TRAILER_BYTES - self._trailer_bytes
        piece = bytes(view[: limit + 1 - len(self._line)])
        end = piece.find(b"\n")
        taken = len(piece) if end < 0 else end + 1
        self._line += piece[:taken]
        if len(self._line) > limit:
            raise HttpError(400, "a line of the chunked body is too long")
        if end >= 0:
            line = bytes(self._line)
            self._line.clear()
            self._on_line(line)
        return taken

    def _on_line(self, line: bytes) -> None:
        if self._part is _Part.SIZE:
            self._on_size(line)
        elif self._part is _Part.DATA_END:
            if line != b"\r\n":
                raise HttpError(400, "a chunk does not end where its size says")
            self._part = _Part.SIZE
        elif line == b"\r\n":
            self._part = _Part.DONE
        else:  # trailers are checked and dropped: nothing here reads them
            self._trailer_bytes += len(line)
            if not _TRAILER.fullmatch(line):
                raise HttpError(400, "a trailer field is not NAME: VALUE")

    def _on_size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise HttpError(400, "a chunk does not begin with its size in hexadecimal")
        self._left = int(match[1], 16)
        if len(self.data) + self._left > self._max_bytes:
            raise HttpError(413, f"a body of more than {self._max_bytes} bytes; at most that many are read")
        self._part = _Part.DATA if self._left else _Part.TRAILER


def decoded(body: bytes | bytearray | memoryview, coding: str, max_bytes: int) -> bytes | bytearray | memoryview:
    """The body without its content coding; `identity` gives it back as it is.

    Args:
        body: as it was sent.
        coding: the value of Content-Encoding: `gzip`, `deflate`, `identity` or empty.
        max_bytes: most bytes that may come out; a body that would make more is refused before they are made.

    Raises:
        HttpError: 400 (damaged, cut short, or bytes behind its end), 413 (too large), 415 (another coding).
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW:
        raise HttpError(415, f"content coding {name[:40]!r} is not read; gzip and deflate are")
    if not len(body):
        raise HttpError(400, f"the body is no {name} data: it is empty")
    window = _WINDOW[name]
    if name == "deflate" and not _has_zlib_header(body):
        window = _RAW_DEFLATE  # what some clients call deflate
    inflater = zlib.decompressobj(wbits=window)
    try:
        data = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise HttpError(400, f"the body is no {name} data: {error}") from error
    if len(data) > max_bytes:
        raise HttpError(413, f"the body is larger than {max_bytes} bytes when inflated; at most that many are read")
    if not inflater.eof:
        raise HttpError(400, f"the {name} data ends too early")
    if inflater.unused_data:
        raise HttpError(400, f"there are bytes behind the {name} data")
    return data


def _has_zlib_header(body: bytes | bytearray | memoryview) -> bool:
    first = bytes(body[:2])
    return len(first) == 2 and first[0] & 0x0F == 8 and int.from_bytes(first, "big") % 31 == 0
