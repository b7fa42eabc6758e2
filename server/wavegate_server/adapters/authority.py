"""The internal certificate authority. (signatures; body follows)"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

__all__ = ["Authority", "Issued", "ServiceFiles"]


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


class Authority:
    """Issues certificates below one directory: ca.pem, ca.key, crl.pem, <service>.pem, <service>.key."""

    def __init__(self, directory: Path) -> None:
        raise NotImplementedError

    def init(self, now: datetime, public_names: Sequence[str]) -> None:
        """Authority, service certificates (`server`, `broker`, `ingest-0`, `publisher`) and an empty CRL, unless there."""
        raise NotImplementedError

    def ca_pem(self) -> str:
        """The authority's certificate."""
        raise NotImplementedError

    def ca_sha256(self) -> bytes:
        """SHA-256 of the authority's certificate (DER): the fingerprint in enrolment tokens."""
        raise NotImplementedError

    def issue_device(self, csr_pem: str, device_id: str, now: datetime) -> Issued:
        """A certificate for a device's own key. The name comes from the registry, nothing but the key from the CSR.
        TrustError `certificate_invalid`; UsageError `invalid` for an id that belongs to the server."""
        raise NotImplementedError

    def issue_service(self, name: str, sans: Sequence[str], now: datetime) -> ServiceFiles:
        """Key and certificate of a part of the server; with `sans` a listener's, without a client's (CN = name)."""
        raise NotImplementedError

    def service(self, name: str) -> ServiceFiles:
        """Where a service's files are. UsageError `setup` when it has none."""
        raise NotImplementedError

    def crl(self, revoked: Iterable[str], now: datetime) -> bytes:
        """Sign and store (`crl_path`) the revocation list of these serials; valid 30 days, to be signed daily."""
        raise NotImplementedError

    @property
    def crl_path(self) -> Path:
        """Where the revocation list (PEM) is."""
        raise NotImplementedError
