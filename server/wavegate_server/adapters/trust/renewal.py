"""Renewal of device certificates: a new key, while the registry's word on the device stays.

    asked      the device sends a request for a new key; the certificate is issued and kept as the device's next one
    used       the device says hello with it: it is the device's certificate now, and the old one goes on the revocation list

Between the two both hold, so whatever dies when costs nothing: an unanswered request is sent again and answered with the same
certificate; a device that never got the answer goes on with the old one. Over MQTT the connection proves who asks; over HTTPS,
where a device comes whose certificate has ended, a signature by its old key does.

Not here: enrolment by token and revocation (`enrolment`), what the device does (`wavegate_agent.control.renewal`).
"""

import hashlib
import hmac
import logging
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlmodel import Session

from wavegate_server.adapters.database.tables import Device, DeviceEvent
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.adapters.trust.enrolment import retire_certificate
from wavegate_shared.errors import TrustError
from wavegate_shared.wire import RENEWAL_PROOF

__all__ = ["check_proof", "new_challenge", "note_used", "renew"]

_CHALLENGE_S = 300
_log = logging.getLogger(__name__)


def renew(session: Session, authority: Authority, device_id: str, csr_pem: str, now: datetime) -> str:
    """The certificate (PEM) for a new key of an active device; the same request gets the same certificate.

    Runs in a write transaction that the caller commits.

    Raises:
        TrustError: `renewal_refused` (no active device of this name, or a key that it had before), `certificate_invalid`.
    """
    device = _active(session, device_id)
    wanted = authority.requested(csr_pem, device_id)
    if wanted in (device.public_key, device.previous_public_key):
        raise TrustError(
            "renewal_refused", "the request is for a key that the device has had; a renewal brings a new one"
        )
    if wanted == device.next_public_key:
        return device.next_certificate
    if device.next_serial:  # issued for a key that the device gave up before it was used
        retire_certificate(session, device_id, device.next_serial, device.next_expires, now, "never used")
    issued = authority.issue_device(csr_pem, device_id, now)
    device.next_public_key, device.next_certificate = issued.public_key_pem, issued.pem
    device.next_serial, device.next_expires = issued.serial, issued.expires
    session.add(device)
    session.flush()
    _log.info("certificate_renewed device=%s serial=%s expires=%s", device_id, issued.serial, issued.expires.date())
    return issued.pem


def note_used(session: Session, device: Device, serial: str, now: datetime) -> bool:
    """The device is connected with the certificate of this serial; True when that made its next one the present one."""
    if not serial or serial != device.next_serial:
        return False
    retire_certificate(session, device.id, device.certificate_serial, device.certificate_expires, now, "renewed")
    device.previous_public_key, device.public_key = device.public_key, device.next_public_key
    device.certificate_serial, device.certificate_expires = device.next_serial, device.next_expires
    device.next_public_key = device.next_certificate = device.next_serial = ""
    device.next_expires = None
    session.add(device)
    session.add(DeviceEvent(device_id=device.id, at=now, kind="renewed", detail=f"certificate {serial}"))
    return True


def new_challenge(authority: Authority, device_id: str, now: datetime) -> str:
    """What a device must sign within five minutes to prove that it holds its key. Kept nowhere."""
    stamp = f"{int(now.timestamp())}"
    return f"{stamp}.{_seal(authority, device_id, stamp)}"


def check_proof(
    session: Session,
    authority: Authority,
    device_id: str,
    *,
    csr_pem: str,
    challenge: str,
    signature: bytes,
    grace: timedelta,
    now: datetime,
) -> None:
    """Whether a device that cannot connect any more holds the key that the registry knows.

    Raises:
        TrustError: `renewal_refused`: not active, ended longer ago than `grace`, or no good signature by its key.
    """
    device = _active(session, device_id)
    _check_challenge(authority, challenge, device_id, now)
    ended = device.certificate_expires
    if ended is None or now - ended > grace:
        days = grace.days
        raise TrustError(
            "renewal_refused", f"its certificate ended more than {days} days ago; enrol it with a new token"
        )
    said = RENEWAL_PROOF + challenge.encode() + b"\n" + csr_pem.encode()
    if not any(_signed(pem, signature, said) for pem in (device.public_key, device.next_public_key) if pem):
        raise TrustError("renewal_refused", "the request is not signed by the key that this device enrolled with")


def _check_challenge(authority: Authority, challenge: str, device_id: str, now: datetime) -> None:
    stamp, _, seal = challenge.partition(".")
    if not hmac.compare_digest(seal.encode(), _seal(authority, device_id, stamp).encode()):
        raise TrustError("renewal_refused", "the challenge is not this server's for this device")
    if not 0 <= int(now.timestamp()) - int(stamp) <= _CHALLENGE_S:
        raise TrustError("renewal_refused", "the challenge is too old; ask for a new one")


def _seal(authority: Authority, device_id: str, stamp: str) -> str:
    secret = authority.secret(b"wavegate renewal challenge")
    return hmac.new(secret, f"{device_id} {stamp}".encode(), hashlib.sha256).hexdigest()


def _active(session: Session, device_id: str) -> Device:
    device = session.get(Device, device_id)
    if device is None or device.state != "active":
        raise TrustError("renewal_refused", f"no active device {device_id!r}")
    return device


def _signed(public_pem: str, signature: bytes, said: bytes) -> bool:
    key = load_pem_public_key(public_pem.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, said, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
