"""Signed JSON documents: a msgspec struct in a DSSE envelope.

The one door to `securesystemslib`. The payload is the struct's JSON; the payload type names the kind of document, so that
a signature on one kind never passes for another. Key ids are those of securesystemslib (hash of the public key).

Source: DSSE v1 protocol, https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SslibError
from securesystemslib.exceptions import FormatError, UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from wavegate_shared.decoding import MALFORMED
from wavegate_shared.errors import TrustError, UsageError

__all__ = [
    "Key",
    "Signer",
    "key_from_dict",
    "key_from_pem",
    "open_signed",
    "seal",
    "signer_from_pem",
    "signer_from_uri",
]

T = TypeVar("T", bound=msgspec.Struct)

_MAX_BYTES = 1 << 20


def seal(document: msgspec.Struct, payload_type: str, signer: Signer) -> bytes:
    """The document, signed: a JSON DSSE envelope."""
    envelope = Envelope(msgspec.json.encode(document), payload_type, {})
    envelope.sign(signer)
    return msgspec.json.encode(envelope.to_dict())


def open_signed(data: bytes, kind: type[T], payload_type: str, keys: Sequence[Key]) -> T:
    """The document inside an envelope signed by one of `keys`; nothing is decoded before the signature holds.

    Raises:
        TrustError: `message_malformed` (not an envelope, another kind, not the schema) or `signature_invalid`.
    """
    if len(data) > _MAX_BYTES:
        raise TrustError("message_malformed", f"envelope of {len(data)} bytes, at most {_MAX_BYTES}")
    try:
        envelope = Envelope.from_dict(msgspec.json.decode(data))
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError, AttributeError, FormatError) as error:
        raise TrustError("message_malformed", f"not a DSSE envelope: {error}") from error
    if envelope.payload_type != payload_type:
        raise TrustError("message_malformed", f"payload type {envelope.payload_type!r}, expected {payload_type!r}")
    if not keys:
        raise TrustError("signature_invalid", "no key is trusted for this kind of document")
    try:
        envelope.verify(list(keys), 1)
    except UnverifiedSignatureError as error:  # its other failures, as a key that is none, come as a subclass of this
        raise TrustError("signature_invalid", f"no trusted key signed this {payload_type}") from error
    try:
        return msgspec.json.decode(envelope.payload, type=kind)
    except MALFORMED as error:
        raise TrustError("message_malformed", f"signed, but not the schema: {error}") from error


def key_from_dict(keyid: str, key: Mapping[str, object]) -> Key:
    """A public key from its TUF form. Raises TrustError `metadata_invalid`."""
    try:
        return Key.from_dict(keyid, dict(key))
    except (KeyError, ValueError, TypeError, FormatError) as error:
        raise TrustError("metadata_invalid", f"not a public key: {error}") from error


def key_from_pem(pem: bytes) -> Key:
    """A public key from PEM (SubjectPublicKeyInfo)."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return SSlibKey.from_crypto(load_pem_public_key(pem))


def signer_from_pem(private_pem: bytes) -> Signer:
    """A signer from an unencrypted PKCS#8 PEM private key (P-256 or Ed25519)."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return CryptoSigner(load_pem_private_key(private_pem, None))


def signer_from_uri(uri: str, public_key: Key) -> Signer:
    """A signer that lives outside this process: a PKCS#11 token, a TPM, a cloud's key service.

    Args:
        uri: as securesystemslib names it (`hsm:`, `awskms:`, `gcpkms:`, `azurekms:`, `hv:`, ...).
        public_key: its public part.

    Raises:
        UsageError: `key_missing`, with what the library said.
    """
    try:
        return Signer.from_priv_key_uri(uri, public_key)
    except (ValueError, OSError, ImportError, SslibError) as error:
        raise UsageError("key_missing", f"the signer {uri.partition(':')[0]}: cannot be used: {error}") from error
