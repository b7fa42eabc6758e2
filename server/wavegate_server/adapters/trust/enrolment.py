"""Enrolment: one-time tokens, certificates for them, and revocation.

A token is spent by one UPDATE ... WHERE used_at IS NULL in the caller's write transaction: however many requests carry the
same token at once, one of them gets a certificate. Tokens are kept as hashes only; they hold 256 random bits, so a plain
SHA-256 is enough. Not here: certificates themselves (`authority`), HTTP (`api`), the audit log (the caller writes it from
what these functions return).
"""

import hashlib
import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import update
from sqlmodel import Session, col, delete, select

from wavegate_server.adapters.database.tables import Device, DeviceEvent, EnrolToken, RevokedCertificate, Watermark
from wavegate_server.adapters.trust.authority import Authority, is_reserved
from wavegate_shared.enrolment import SECRET_BYTES, TokenParts, format_token, parse_token
from wavegate_shared.errors import TrustError, UsageError

__all__ = [
    "TOKEN_TTL",
    "Enrolled",
    "Revocation",
    "create_token",
    "redeem",
    "reissue",
    "retire_certificate",
    "revoke_device",
    "revoked_serials",
]

TOKEN_TTL = timedelta(hours=24)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device that was enrolled; the API's answer adds root metadata, topic prefix and the broker's address.

    Attributes:
        certificate, ca: PEM.
        device, hardware_class, site, shard, bench: from the registry.
    """

    certificate: str
    ca: str
    device: str
    hardware_class: str
    site: str
    shard: int
    bench: bool = False


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation did, for the audit log. Attributes: device, previous_state, serial and expires of its certificate."""

    device: str
    previous_state: str
    serial: str
    expires: datetime | None


def create_token(
    session: Session, authority: Authority, device_id: str, *, now: datetime, ttl: timedelta = TOKEN_TTL
) -> str:
    """A fresh token for a registered device; unused older ones end at once. Only its hash is stored.

    For a device that is active already it is a re-enrolment: its old certificate is revoked when the token is spent.

    Raises:
        UsageError: `not_found`, `conflict` (a revoked device), `invalid` (an id that belongs to the server).
    """
    device = session.get(Device, device_id)
    if device is None:
        raise UsageError("not_found", f"no device {device_id!r}")
    if is_reserved(device_id):
        raise UsageError("invalid", f"{device_id!r} is the name of a part of the server")
    if device.state == "revoked":
        raise UsageError("conflict", f"{device_id} was revoked; register it under a new id")
    _end_tokens(session, device_id, now)
    token = format_token(TokenParts(device_id, secrets.token_bytes(SECRET_BYTES), authority.ca_sha256()))
    session.add(EnrolToken(device_id=device_id, token_hash=_hash(token), created_at=now, expires_at=now + ttl))
    session.flush()
    return token


def redeem(session: Session, authority: Authority, token: str, csr_pem: str, now: datetime) -> Enrolled:
    """Spend a token: exactly one certificate, whatever happens in parallel.

    Runs in a write transaction that the caller commits. On any error the caller must roll back (`database.write` does): then
    nothing was spent, so a device with a broken request can try again.

    Raises:
        TrustError: `token_invalid` (malformed, unknown, used, expired, of another authority) or `certificate_invalid`.
    """
    parts = parse_token(token)
    token = token.strip()
    if not secrets.compare_digest(parts.ca_sha256, authority.ca_sha256()):
        raise TrustError("token_invalid", "the token is for another server")
    _spend(session, token, now)
    device = session.get(Device, parts.device)
    if device is None or device.state == "revoked":
        raise TrustError("token_invalid", "the device of this token is gone or revoked")
    issued = authority.issue_device(csr_pem, device.id, now)
    _retire_all(session, device, now, "replaced at re-enrolment")
    device.state = "active"
    device.previous_public_key = ""
    device.public_key = issued.public_key_pem
    device.certificate_serial = issued.serial
    device.certificate_expires = issued.expires
    device.enrolled_at = now
    device.revision += 1
    session.add(device)
    # an agent enrolled anew counts its starts from 1 again; the old mark would make everything it says a repetition
    session.exec(delete(Watermark).where(col(Watermark.device_id) == device.id))
    session.add(DeviceEvent(device_id=device.id, at=now, kind="enrolled", detail=f"certificate {issued.serial}"))
    session.flush()
    _log.info("device_enrolled device=%s serial=%s", device.id, issued.serial)
    return Enrolled(
        issued.pem, authority.ca_pem(), device.id, device.hardware_class, device.site, device.shard, device.bench
    )


def reissue(session: Session, authority: Authority, device_id: str, *, now: datetime) -> str:
    """A fresh token for a device, and the end of every certificate it has: it is `pending` until the token is spent.

    For an identity that was copied, or may have been. The caller signs the revocation list anew.

    Raises:
        UsageError: as `create_token`.
    """
    token = create_token(session, authority, device_id, now=now)
    device = session.get_one(Device, device_id)
    _retire_all(session, device, now, "identity reissued")
    device.state = "pending"
    device.public_key = device.previous_public_key = device.cloned = ""
    device.runs = {}
    device.revision += 1
    session.add(device)
    session.add(DeviceEvent(device_id=device_id, at=now, kind="reissued"))
    session.flush()
    return token


def revoke_device(session: Session, device_id: str, now: datetime, *, reason: str = "") -> Revocation:
    """Shut a device out: state `revoked`, tokens ended, certificate named in the next revocation list. Repeatable.

    The server ignores the device from the commit on. The caller signs the list anew (`Authority.crl(revoked_serials(...))`)
    and tells the broker, which also cuts a live connection.

    Raises:
        UsageError: `not_found`.
    """
    device = session.get(Device, device_id)
    if device is None:
        raise UsageError("not_found", f"no device {device_id!r}")
    done = Revocation(device_id, device.state, device.certificate_serial, device.certificate_expires)
    _end_tokens(session, device_id, now)
    if device.state != "revoked":
        _retire_all(session, device, now, reason or "device revoked")
        device.state = "revoked"
        device.revision += 1
        session.add(device)
        session.add(DeviceEvent(device_id=device_id, at=now, kind="revoked", detail=reason))
        _log.warning("device_revoked device=%s serial=%s", device_id, device.certificate_serial)
    session.flush()
    return done


def revoked_serials(session: Session, now: datetime) -> list[str]:
    """Serials the revocation list must name: revoked or replaced, and not expired yet."""
    statement = select(RevokedCertificate.serial).where(col(RevokedCertificate.expires_at) > now)
    return sorted(session.exec(statement))


def _spend(session: Session, token: str, now: datetime) -> None:
    session.flush()
    spent = session.connection().execute(
        update(EnrolToken)
        .where(col(EnrolToken.token_hash) == _hash(token), col(EnrolToken.used_at).is_(None))
        .where(col(EnrolToken.expires_at) > now)
        .values(used_at=now)
    )
    if spent.rowcount == 1:
        return
    row = session.exec(select(EnrolToken).where(EnrolToken.token_hash == _hash(token))).one_or_none()
    why = "unknown" if row is None else "already used" if row.used_at is not None else "expired"
    _log.warning("enrolment_refused device=%s why=%s", "?" if row is None else row.device_id, why)
    raise TrustError("token_invalid", f"the enrolment token is {why}; ask for a new one")


def _end_tokens(session: Session, device_id: str, now: datetime) -> None:
    session.flush()
    session.connection().execute(
        update(EnrolToken)
        .where(col(EnrolToken.device_id) == device_id, col(EnrolToken.used_at).is_(None))
        .where(col(EnrolToken.expires_at) > now)
        .values(expires_at=now)
    )


def retire_certificate(
    session: Session, device_id: str, serial: str, expires: datetime | None, now: datetime, reason: str
) -> None:
    """Name a certificate for the revocation list; the list is signed by the caller, or within a minute."""
    if serial and expires is not None and session.get(RevokedCertificate, serial) is None:
        session.add(
            RevokedCertificate(serial=serial, device_id=device_id, revoked_at=now, expires_at=expires, reason=reason)
        )


def _retire_all(session: Session, device: Device, now: datetime, reason: str) -> None:
    """The present certificate, and the next one where a renewal was under way."""
    retire_certificate(session, device.id, device.certificate_serial, device.certificate_expires, now, reason)
    retire_certificate(session, device.id, device.next_serial, device.next_expires, now, reason)
    device.next_public_key = device.next_certificate = device.next_serial = ""
    device.next_expires = None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
