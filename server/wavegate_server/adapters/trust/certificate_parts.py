"""What certificates are made of: names, key usages, requests. Who issues which: `authority`."""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from wavegate_shared.errors import TrustError

__all__ = [
    "BACKDATE",
    "builder",
    "general_names",
    "issuer_id",
    "name_of",
    "private_pem",
    "requested_key",
    "serial_text",
    "usage",
]

BACKDATE = timedelta(hours=1)
"""Certificates start a little in the past: devices' clocks lag."""
_MAX_CSR_BYTES = 8192


def serial_text(serial: int) -> str:
    """A certificate's serial number as it is stored: lower-case hex."""
    return f"{serial:x}"


def requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The key of a request. Raises TrustError `certificate_invalid`."""
    data = csr_pem.encode()
    if len(data) > _MAX_CSR_BYTES:
        raise TrustError("certificate_invalid", f"request of {len(data)} bytes, at most {_MAX_CSR_BYTES}")
    try:
        request = x509.load_pem_x509_csr(data)
        valid = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise TrustError("certificate_invalid", f"not a certificate request: {error}") from error
    if not valid:
        raise TrustError("certificate_invalid", "the request is not signed by the key it names")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError("certificate_invalid", "a device's key must be EC P-256")
    return key


def builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, days: float
) -> x509.CertificateBuilder:
    """A certificate with what all have; it begins a little in the past, because devices' clocks lag."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
    )


def name_of(common: str, unit: str) -> x509.Name:
    """A subject: common name and unit."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wavegate"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def usage(*, sign_certificates: bool) -> x509.KeyUsage:
    """Key usage: to sign certificates and revocation lists, or to speak TLS."""
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def issuer_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Names the authority's key."""
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def general_names(sans: Sequence[str]) -> list[x509.GeneralName]:
    """Host names and addresses of a listener."""
    names: list[x509.GeneralName] = []
    for san in sans:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(san)))
        except ValueError:
            names.append(x509.DNSName(san))
    return names


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key, PKCS#8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
