"""Enrolment: the token's text, spelled and read here only, and what the server answers a device.

    wg1.<device id>.<32 random bytes, base64url>.<SHA-256 of the authority's certificate (DER), base64url>

The last part lets a device pin the server before it trusts it: it fetches the authority's certificate over a connection it
cannot verify yet, and goes on only when the fingerprint is the token's. A device id may hold dots; the other parts never do.
Not here: hashing, storing and spending tokens (the server's `adapters/trust/enrolment.py`).
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

import msgspec

from wavegate_shared.errors import TrustError
from wavegate_shared.topics import DEVICE_ID

__all__ = ["SECRET_BYTES", "EnrolmentAnswer", "TokenParts", "ca_fingerprint", "format_token", "parse_token"]

SECRET_BYTES = 32
_MAGIC = "wg1"
_MAX_CHARS = 256


@dataclass(frozen=True, slots=True)
class TokenParts:
    """What a token says. Attributes: device, secret (32 bytes), ca_sha256 (32 bytes, of the certificate's DER)."""

    device: str
    secret: bytes
    ca_sha256: bytes


class EnrolmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a device gets for its token, as JSON over HTTPS.

    Attributes:
        certificate, ca: PEM; of the device, and of the authority that verifies server and broker.
        root: TUF root metadata to start trust from, as JSON text.
        bench: whether it measures candidates; only enrolment says so to a device.
    """

    certificate: str
    ca: str
    root: str
    device: str
    hardware_class: str
    site: str
    shard: int
    topic_prefix: str
    broker_host: str
    broker_port: int
    bench: bool = False


def format_token(parts: TokenParts) -> str:
    """The token's text; `parse_token(format_token(p)) == p`."""
    return ".".join((_MAGIC, parts.device, _encode(parts.secret), _encode(parts.ca_sha256)))


def parse_token(text: str) -> TokenParts:
    """The parts of a token. Raises TrustError `token_invalid`; the message never repeats the token."""
    head, _, rest = text.strip().partition(".")
    fields = rest.rsplit(".", 2)
    if len(text) > _MAX_CHARS or head != _MAGIC or len(fields) != 3 or DEVICE_ID.fullmatch(fields[0]) is None:
        raise TrustError("token_invalid", "not an enrolment token")
    secret, fingerprint = _decode(fields[1]), _decode(fields[2])
    if len(secret) != SECRET_BYTES or len(fingerprint) != hashlib.sha256().digest_size:
        raise TrustError("token_invalid", "the enrolment token is cut short or damaged")
    return TokenParts(fields[0], secret, fingerprint)


def ca_fingerprint(der: bytes) -> bytes:
    """SHA-256 of the authority's certificate in DER form (from PEM: `ssl.PEM_cert_to_DER_cert`)."""
    return hashlib.sha256(der).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TrustError("token_invalid", "the enrolment token is cut short or damaged") from error
    if _encode(data) != text:
        raise TrustError("token_invalid", "the enrolment token is damaged")
    return data
