"""Enrolment: one-time tokens, certificates for them, and revocation. (signatures; body follows)"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from wavegate_server.adapters.authority import Authority

__all__ = ["TOKEN_TTL", "EnrolAnswer", "Revocation", "create_token", "redeem", "revoke_device", "revoked_serials"]

TOKEN_TTL = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class EnrolAnswer:
    """What enrolment gives a device; the API adds root metadata, topic prefix and the broker's address."""

    certificate: str
    ca: str
    device: str
    hardware_class: str
    site: str
    shard: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation did, for the audit log."""

    device: str
    previous_state: str
    serial: str
    expires: datetime | None


def create_token(
    session: Session, authority: Authority, device_id: str, *, now: datetime, ttl: timedelta = TOKEN_TTL
) -> str:
    """A fresh token for a registered device; older unused ones end. UsageError `not_found`, `conflict` (revoked device)."""
    raise NotImplementedError


def redeem(session: Session, authority: Authority, token: str, csr_pem: str, now: datetime) -> EnrolAnswer:
    """Spend a token: exactly one certificate, whatever happens in parallel. In a write transaction that the caller commits.
    TrustError `token_invalid` or `certificate_invalid`; on any error the transaction must roll back (the token stays good)."""
    raise NotImplementedError


def revoke_device(session: Session, device_id: str, now: datetime, *, reason: str = "") -> Revocation:
    """Shut a device out: state `revoked`, tokens ended, certificate on the list for the next CRL. Repeatable."""
    raise NotImplementedError


def revoked_serials(session: Session, now: datetime) -> list[str]:
    """Serials the CRL must name: revoked or replaced, and not yet expired."""
    raise NotImplementedError
