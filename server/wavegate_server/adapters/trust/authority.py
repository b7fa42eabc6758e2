"""The internal certificate authority: who may speak TLS with whom.

    ca.pem, ca.key        the authority (EC P-256, ten years); the key never leaves this directory
    <service>.pem, .key   parts of the server: `server` (HTTPS), `broker` (listener), `ingest-<n>` and `publisher` (clients)
    crl.pem               revoked device certificates, 30 days valid, to be signed daily
    crl.json              their serial numbers, for a broker that reads no such list

A device's certificate carries the name from the registry in its common name and OU=device; from the request only the key is
taken. Service certificates carry OU=server. Brokers that know only the common name could not tell a device called
"publisher" from the server's publisher, so names of services are never given to devices.

Not here: tokens and the registry (`enrolment`), TLS contexts (their users).
Source: RFC 5280; extensions as Python's `VERIFY_X509_STRICT` wants them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wavegate_server.adapters.files.durable import PRIVATE, locked, make_directory, write_durable
from wavegate_server.adapters.trust.certificate_parts import (
    BACKDATE,
    builder,
    general_names,
    issuer_id,
    name_of,
    private_pem,
    requested_key,
    serial_text,
    usage,
)
from wavegate_shared.enrolment import ca_fingerprint
from wavegate_shared.errors import TrustError, UsageError
from wavegate_shared.topics import DEVICE_ID

__all__ = [
    "CRL_DAYS",
    "DEVICE_DAYS",
    "SERVICES",
    "Authority",
    "Issued",
    "ServiceFiles",
    "is_reserved",
]

SERVICES = ("server", "broker", "ingest-0", "publisher")
"""What a one-machine installation needs; the first two are listeners."""
LISTENERS = frozenset({"server", "broker"})
DEVICE_DAYS = 90
CRL_DAYS = 30
"""An expired revocation list locks out the whole fleet, so it lives thirty times as long as the time between signings."""
_CA_DAYS = 3650
_SERVICE_DAYS = 397
_RENEW_DAYS = 30
_RESERVED = re.compile(r"(ingest-.*|publisher|server|broker)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Issued:
    """A device's new certificate. Attributes: pem, serial (hex), expires, public_key_pem."""

    pem: str
    serial: str
    expires: datetime
    public_key_pem: str


@dataclass(frozen=True, slots=True)
class ServiceFiles:
    """Where a service's identity lies: certificate and key (PEM), and the authority's certificate to verify peers with."""

    certificate: Path
    key: Path
    ca: Path


def is_reserved(name: str) -> bool:
    """Whether a name belongs to a part of the server and must not become a device's."""
    return _RESERVED.fullmatch(name) is not None


class Authority:
    """Issues certificates below one directory; a device's lives `device_days`."""

    def __init__(self, directory: Path, *, device_days: float = DEVICE_DAYS) -> None:
        self._directory = directory
        self._device_days = device_days
        self._loaded: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None

    def init(self, now: datetime, public_names: Sequence[str]) -> None:
        """Authority, certificates of `SERVICES` and an empty revocation list, unless they are there.

        A repeated call changes nothing but what is due: a service certificate that ends within 30 days or lacks one of the
        names is made anew, key included.
        """
        make_directory(self._directory, mode=0o700)
        with locked(self._directory / ".lock"):
            if not (self._directory / "ca.pem").is_file():
                self._create(now)
        self.renew_services(now, public_names)
        if not self.crl_path.is_file():
            self.crl([], now)

    @property
    def ready(self) -> bool:
        """Whether the authority was made."""
        return (self._directory / "ca.pem").is_file()

    def ca_pem(self) -> str:
        """The authority's certificate. Raises UsageError `setup`."""
        return self._ca()[0].public_bytes(Encoding.PEM).decode()

    def ca_sha256(self) -> bytes:
        """SHA-256 of the authority's certificate (DER): the fingerprint in enrolment tokens."""
        return ca_fingerprint(self._ca()[0].public_bytes(Encoding.DER))

    def issue_device(self, csr_pem: str, device_id: str, now: datetime) -> Issued:
        """A certificate for a device's own key. The name comes from the registry, nothing but the key from the request.

        Raises:
            TrustError: `certificate_invalid`: not a request, its signature does not hold, or not a P-256 key.
            UsageError: `invalid` for an id that cannot be a device's or belongs to the server.
        """
        if DEVICE_ID.fullmatch(device_id) is None or is_reserved(device_id):
            raise UsageError("invalid", f"{device_id!r} cannot be a device's id")
        public_key = requested_key(csr_pem)
        certificate = self._sign(
            name_of(device_id, "device"), public_key, now, self._device_days, [ExtendedKeyUsageOID.CLIENT_AUTH], []
        )
        return Issued(
            certificate.public_bytes(Encoding.PEM).decode(),
            serial_text(certificate.serial_number),
            certificate.not_valid_after_utc,
            public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        )

    def requested(self, csr_pem: str, device_id: str) -> str:
        """The public key (PEM) that a device's request is for.

        Raises:
            TrustError: `certificate_invalid`: not a request, not signed by its key, not P-256, or for another name.
        """
        key = requested_key(csr_pem)
        names = x509.load_pem_x509_csr(csr_pem.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if [name.value for name in names] != [device_id]:
            raise TrustError("certificate_invalid", f"the request is not for {device_id}")
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def secret(self, purpose: bytes) -> bytes:
        """32 bytes that only holders of the authority's key can know, others for each purpose."""
        return hashlib.sha256(purpose + private_pem(self._ca()[1])).digest()

    def renew_services(self, now: datetime, public_names: Sequence[str]) -> tuple[str, ...]:
        """Make the services' certificates anew that end within 30 days or lack one of the names; which these were."""
        names = list(dict.fromkeys([*public_names, "localhost", "127.0.0.1", "::1"]))
        due = [name for name in SERVICES if not self._is_good(name, names if name in LISTENERS else [], now)]
        for name in due:
            self.issue_service(name, names if name in LISTENERS else [], now)
        return tuple(due)

    def issue_service(self, name: str, sans: Sequence[str], now: datetime) -> ServiceFiles:
        """Key and certificate of a part of the server, written below the directory.

        Args:
            name: one of the reserved names, as `ingest-3`.
            sans: host names and addresses of a listener, the public name first; empty for a client (CN = name).
            now: start of validity.
        """
        if not is_reserved(name):
            raise UsageError("invalid", f"{name!r} is not a part of the server")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH if sans else ExtendedKeyUsageOID.CLIENT_AUTH]
        key = ec.generate_private_key(ec.SECP256R1())
        subject = name_of(sans[0] if sans else name, "server")
        certificate = self._sign(subject, key.public_key(), now, _SERVICE_DAYS, usages, sans)
        files = self._files(name)
        with locked(self._directory / ".lock"):
            write_durable(files.key, private_pem(key), mode=PRIVATE)
            write_durable(files.certificate, certificate.public_bytes(Encoding.PEM))
        return files

    def service(self, name: str) -> ServiceFiles:
        """Where a service's files are. Raises UsageError `setup` when it has none."""
        files = self._files(name)
        if not files.certificate.is_file() or not files.key.is_file():
            raise UsageError("setup", f"{name} has no certificate in {self._directory}; start `wavegate serve` once")
        return files

    def crl(self, revoked: Iterable[str], now: datetime) -> bytes:
        """Sign and store (`crl_path`) the revocation list; PEM. Sign it daily.

        A revocation is never taken back: what the present list names stays named until its certificate must have expired,
        so callers that know of different revocations do not undo each other's.

        Args:
            revoked: serials (hex) to name.
            now: start of the list's 30 days.
        """
        ca, key = self._ca()
        with locked(self._directory / ".lock"):
            dates = self._listed(now)
            dates.update({int(serial, 16): now for serial in revoked if int(serial, 16) not in dates})
            unsigned = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(ca.subject)
                .last_update(now - BACKDATE)
                .next_update(now + timedelta(days=CRL_DAYS))
                .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
                .add_extension(issuer_id(ca), critical=False)
            )
            for serial, since in sorted(dates.items()):
                entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
                unsigned = unsigned.add_revoked_certificate(entry.build())
            data = unsigned.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
            write_durable(self.crl_path, data)
            named = [serial_text(serial) for serial in sorted(dates)]
            write_durable(self.crl_path.with_suffix(".json"), json.dumps(named).encode())
        return data

    @property
    def crl_path(self) -> Path:
        """Where the revocation list (PEM) is."""
        return self._directory / "crl.pem"

    def listed_serials(self) -> list[str]:
        """Serials (hex) the present revocation list names."""
        present = x509.load_pem_x509_crl(self.crl_path.read_bytes())
        return sorted(serial_text(entry.serial_number) for entry in present)

    def crl_due(self, now: datetime) -> bool:
        """Whether the revocation list is missing or a day old."""
        expires = self.expiries().get("crl")
        return expires is None or expires - now < timedelta(days=CRL_DAYS - 1)

    def expiries(self) -> dict[str, datetime]:
        """`ca`, `crl` and each service -> when it ends, as far as the files can be read."""
        found: dict[str, datetime] = {}
        for path in sorted(self._directory.glob("*.pem")):
            data = path.read_bytes()
            try:
                if path == self.crl_path:
                    update = x509.load_pem_x509_crl(data).next_update_utc
                    if update is not None:
                        found["crl"] = update
                else:
                    found[path.stem] = x509.load_pem_x509_certificate(data).not_valid_after_utc
            except ValueError:
                continue
        return found

    def key_files(self) -> list[Path]:
        """Private keys below the directory, for a check of their rights."""
        return sorted(self._directory.glob("*.key"))

    def _listed(self, now: datetime) -> dict[int, datetime]:
        """Serial -> since when, of the present list, as far as the certificates can still be valid."""
        oldest = now - timedelta(days=max(self._device_days, DEVICE_DAYS) + 1)
        try:
            present = x509.load_pem_x509_crl(self.crl_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return {
            entry.serial_number: entry.revocation_date_utc for entry in present if entry.revocation_date_utc > oldest
        }

    def _files(self, name: str) -> ServiceFiles:
        base = self._directory
        return ServiceFiles(base / f"{name}.pem", base / f"{name}.key", base / "ca.pem")

    def _ca(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if self._loaded is None:
            try:
                certificate = x509.load_pem_x509_certificate((self._directory / "ca.pem").read_bytes())
                key = load_pem_private_key((self._directory / "ca.key").read_bytes(), None)
            except (OSError, ValueError) as error:
                raise UsageError("setup", f"no certificate authority in {self._directory}: {error}") from error
            if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
                raise UsageError("setup", f"ca.key in {self._directory} does not belong to ca.pem")
            self._loaded = (certificate, key)
        return self._loaded

    def _create(self, now: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # A short digest in the name: two installations on one network have two authorities one can tell apart.
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        subject = name_of(f"Wavegate CA {identifier.digest.hex()[:8]}", "authority")
        certificate = (
            builder(subject, subject, key.public_key(), now, _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(sign_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_durable(self._directory / "ca.key", private_pem(key), mode=PRIVATE)
        write_durable(self._directory / "ca.pem", certificate.public_bytes(Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        now: datetime,
        days: float,
        usages: list[x509.ObjectIdentifier],
        sans: Sequence[str],
    ) -> x509.Certificate:
        ca, key = self._ca()
        unsigned = (
            builder(subject, ca.subject, public_key, now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(issuer_id(ca), critical=False)
        )
        if sans:
            unsigned = unsigned.add_extension(x509.SubjectAlternativeName(general_names(sans)), critical=False)
        return unsigned.sign(key, hashes.SHA256())

    def _is_good(self, name: str, sans: Sequence[str], now: datetime) -> bool:
        files = self._files(name)
        try:
            certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
            key = load_pem_private_key(files.key.read_bytes(), None)
            certificate.verify_directly_issued_by(self._ca()[0])
            have = (
                set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
                if sans
                else set()
            )
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        lasts = certificate.not_valid_after_utc - now > timedelta(days=_RENEW_DAYS)
        return lasts and key.public_key() == certificate.public_key() and set(general_names(sans)) <= have
