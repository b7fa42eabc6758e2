"""Keys, certificate requests and certificates of a device, in PEM. Where they lie: `identity_renewal`, `enrol`."""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wavegate_agent.core.renewal import Term
from wavegate_shared.errors import TrustError

__all__ = ["belong_together", "check_certificate", "new_key", "request_for", "sign", "term_of"]


def new_key() -> bytes:
    """A private key, P-256, PKCS#8."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request_for(key: bytes, device: str) -> str:
    """A certificate request for this key and name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(_private(key), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def term_of(certificate: bytes) -> Term:
    """Serial number and life. Raises TrustError `certificate_invalid`."""
    found = _certificate(certificate)
    return Term(f"{found.serial_number:x}", found.not_valid_before_utc, found.not_valid_after_utc)


def belong_together(key: bytes, certificate: bytes) -> bool:
    """Whether the certificate is for the key."""
    try:
        return _certificate(certificate).public_key() == _private(key).public_key()
    except TrustError:
        return False


def check_certificate(certificate: bytes, key: bytes, authority: bytes, device: str) -> None:
    """Raises TrustError `certificate_invalid` unless it is this authority's, for this key and this name."""
    found = _certificate(certificate)
    try:
        found.verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise TrustError("certificate_invalid", f"the certificate does not verify: {error}") from error
    if found.public_key() != _private(key).public_key():
        raise TrustError("certificate_invalid", "the certificate is for another key")
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [device]:
        raise TrustError("certificate_invalid", "the certificate is for another name")


def sign(key: bytes, said: bytes) -> bytes:
    """An ECDSA-SHA256 signature, DER."""
    return _private(key).sign(said, ec.ECDSA(hashes.SHA256()))


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise TrustError("certificate_invalid", f"not a private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TrustError("certificate_invalid", "a device's key must be EC P-256")
    return key


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise TrustError("certificate_invalid", f"not a certificate: {error}") from error
