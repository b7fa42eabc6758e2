"""HTTP/1.1 message heads, as much as an inference API needs: parse a request or response head, write one.

Not here: sockets, routes, codings of bodies (`request_body.py`). A reader can stop exactly at the end of a request, by the
stated length or by the last chunk, and the bytes of the next one stay in the kernel, where they travel along when the socket
is handed over. Anything two parsers could read differently (two lengths, folded lines, bare line feeds) is refused.

Source: RFC 9112.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

__all__ = [
    "CONTINUE",
    "MAX_HEAD_BYTES",
    "HttpError",
    "RequestHead",
    "ResponseHead",
    "find_end",
    "parse_request",
    "parse_response",
    "render_request",
    "render_response",
]

MAX_HEAD_BYTES = 16 * 1024
_MAX_FIELDS = 100
_END = b"\r\n\r\n"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REASONS = {
    100: "Continue",
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpError(Exception):
    """A head that cannot be served.

    Attributes:
        status: HTTP status to answer with; the connection is closed afterwards.
        message: what is wrong, for the client's developer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head.

    Attributes:
        fields: by lower-case names.
        length: the body's bytes; 0 where it is chunked.
        chunked: the body comes in chunks.
        path: decoded, without the query.
    """

    method: str
    path: str
    fields: dict[str, str]
    length: int
    keep_alive: bool
    wants_continue: bool
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's head; same conventions."""

    status: int
    fields: dict[str, str]
    length: int
    keep_alive: bool


def find_end(data: bytes | bytearray, start: int = 0) -> int:
    """Offset just behind the head, or -1 while it is incomplete; `start` skips what was searched before."""
    at = data.find(_END, max(0, start - len(_END) + 1))
    return -1 if at < 0 else at + len(_END)


def parse_request(head: bytes | bytearray) -> RequestHead:
    """Read a complete request head (up to and with the empty line).

    Raises:
        HttpError: 400, 431, 501 or 505.
    """
    first, fields = _split(head)
    parts = first.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]):
        raise HttpError(400, "the first line is not METHOD PATH HTTP/1.x")
    method, target, version = parts
    minor = _minor(version)
    if not target.startswith("/") or not target.isprintable():
        raise HttpError(400, "the path does not begin with a slash")
    chunked = _chunked(fields, minor)
    expect = fields.get("expect", "").lower()
    if expect not in ("", "100-continue"):
        raise HttpError(400, "unknown Expect")
    return RequestHead(
        method=method,
        path=unquote(target.partition("?")[0]),
        fields=fields,
        length=_length(fields) or 0,
        keep_alive=_keep_alive(fields, minor),
        wants_continue=expect == "100-continue" and minor == 1,
        chunked=chunked,
    )


def parse_response(head: bytes | bytearray) -> ResponseHead:
    """Read a complete response head. Raises HttpError when it is not one we can frame."""
    first, fields = _split(head)
    parts = first.split(" ", 2)
    if len(parts) < 2 or not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) == 3):
        raise HttpError(400, "the answer is not HTTP")
    minor = _minor(parts[0])
    length = _length(fields)
    if length is None and int(parts[1]) != 100:
        raise HttpError(411, "the answer has no Content-Length")
    return ResponseHead(int(parts[1]), fields, length or 0, _keep_alive(fields, minor))


def render_response(status: int, fields: Iterable[tuple[str, str]], length: int, *, keep_alive: bool) -> bytes:
    """The bytes of a response head."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += [f"Content-Length: {length}", f"Connection: {'keep-alive' if keep_alive else 'close'}", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def render_request(method: str, path: str, host: str, fields: Iterable[tuple[str, str]], length: int) -> bytes:
    """The bytes of a request head."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += [f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _split(head: bytes | bytearray) -> tuple[str, dict[str, str]]:
    if len(head) > MAX_HEAD_BYTES:
        raise HttpError(431, f"the head is longer than {MAX_HEAD_BYTES} bytes")
    lines = head[: -len(_END)].decode("latin-1").split("\r\n")
    if len(lines) > _MAX_FIELDS + 1:
        raise HttpError(431, f"more than {_MAX_FIELDS} header fields")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or any(char in value for char in "\r\n\0"):
            raise HttpError(400, "a header field is not NAME: VALUE")
        key, text = name.lower(), value.strip(" \t")
        if key in fields:
            if key in ("content-length", "transfer-encoding", "host", "inference-header-content-length"):
                raise HttpError(400, f"{name} is given twice")
            text = f"{fields[key]}, {text}"
        fields[key] = text
    return lines[0], fields


def _minor(version: str) -> int:
    if version == "HTTP/1.1":
        return 1
    if version == "HTTP/1.0":
        return 0
    raise HttpError(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")


def _length(fields: dict[str, str]) -> int | None:
    text = fields.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise HttpError(400, "Content-Length is not a number")
    return int(text)


def _chunked(fields: dict[str, str], minor: int) -> bool:
    """Whether the body is chunked; with a length beside it, or from an HTTP/1.0 client, two parsers could disagree."""
    coding = fields.get("transfer-encoding")
    if coding is None:
        return False
    if "content-length" in fields or minor == 0:
        raise HttpError(400, "Transfer-Encoding goes with HTTP/1.1 and without Content-Length")
    if coding.lower() != "chunked":
        raise HttpError(501, "the only transfer coding read here is chunked")
    return True


def _keep_alive(fields: dict[str, str], minor: int) -> bool:
    options = {option.strip().lower() for option in fields.get("connection", "").split(",")}
    return "close" not in options if minor == 1 else "keep-alive" in options
