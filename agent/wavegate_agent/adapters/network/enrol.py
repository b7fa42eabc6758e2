"""Enrolment: a one-time token becomes this device's identity. The control process never comes here (httpx).

The token carries the fingerprint of the server's authority. So the authority's certificate is fetched over a connection that
proves nothing, is accepted only when its fingerprint is the token's, and from then on every byte goes over a connection that
it verifies. The private key is made here and never leaves the device; the name in the certificate is the registry's word.
"""

import logging
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from wavegate_agent.adapters.disk.durable import sync_directory, write_durably
from wavegate_agent.adapters.network.certificates import check_certificate, new_key, request_for
from wavegate_shared.enrolment import EnrolmentAnswer, TokenParts, ca_fingerprint, parse_token
from wavegate_shared.errors import CODES, TransferError, TrustError, UsageError, error_for
from wavegate_shared.topics import DEVICE_ID

__all__ = ["TIMEOUT_S", "asked", "enrol", "raise_for_problem"]

_LOG = logging.getLogger(__name__)
TIMEOUT_S = 30.0
_MAX_BYTES = 1 << 20
T = TypeVar("T")


def enrol(token: str, server: str, directory: Path, *, replace: bool = False) -> EnrolmentAnswer:
    """Spend `token` at `server` and write the identity below `directory`.

    A device that has an identity keeps it unless `replace`; a failure before the last step leaves the old one whole.

    Raises:
        UsageError: `conflict` (already enrolled), `setup` (bad address).
        TrustError: `token_invalid`, `certificate_invalid` (another server answered, or a certificate that is not ours).
        TransferError: `not_connected`.
    """
    parts = parse_token(token)
    if (directory / "agent.json").exists() and not replace:
        raise UsageError("conflict", f"this device is enrolled already ({directory}); --replace starts over")
    base = _base_url(server)
    ca_pem = _fetch_authority(base, parts)
    key = new_key()
    answer = _redeem(base, token, ca_pem, request_for(key, parts.device))
    _check(answer, parts, key)
    _write(directory, answer, key, base)
    _LOG.info("enrolled device=%s server=%s", answer.device, base)
    return answer


def _base_url(server: str) -> str:
    url = httpx.URL(server if "://" in server else f"https://{server}")
    if url.scheme != "https" or not url.host:
        raise UsageError("setup", f"{server!r} is not an https:// address")
    return str(url).rstrip("/")


def _fetch_authority(base: str, parts: TokenParts) -> str:
    """The authority's certificate, believed only for its fingerprint."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent, and what comes is checked against the token right below
    with httpx.Client(verify=context, timeout=TIMEOUT_S) as client:
        response = asked(lambda: client.get(f"{base}/api/v1/ca"), base)
    raise_for_problem(response)
    pem = response.text
    try:
        fingerprint = ca_fingerprint(ssl.PEM_cert_to_DER_cert(pem.strip() + "\n"))
    except ValueError as error:
        raise TrustError("certificate_invalid", f"{base} did not answer with a certificate") from error
    if fingerprint != parts.ca_sha256:
        raise TrustError("certificate_invalid", f"{base} is not the server this token was made for")
    return pem


def _redeem(base: str, token: str, ca_pem: str, csr: str) -> EnrolmentAnswer:
    context = ssl.create_default_context(cadata=ca_pem)
    with httpx.Client(verify=context, timeout=TIMEOUT_S) as client:
        response = asked(lambda: client.post(f"{base}/api/v1/enrol", json={"token": token, "csr": csr}), base)
    raise_for_problem(response)
    try:
        return msgspec.json.decode(response.content[:_MAX_BYTES], type=EnrolmentAnswer)
    except msgspec.DecodeError as error:
        raise TrustError("message_malformed", f"{base} answered something else than an identity: {error}") from error


def asked(call: Callable[[], httpx.Response], base: str) -> httpx.Response:
    """What the call gives. Raises TransferError `not_connected`, or TrustError where the server is not the authority's."""
    try:
        return call()
    except httpx.HTTPError as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise TrustError("certificate_invalid", f"{base}: {error}") from error
        raise TransferError("not_connected", f"{base}: {error}") from error


def raise_for_problem(response: httpx.Response) -> None:
    """The server's problem document as the error it names."""
    if response.is_success:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    problem = problem if isinstance(problem, dict) else {}
    code = str(problem.get("code") or str(problem.get("type", "")).rsplit(":", 1)[-1])
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {response.status_code}")[:300]
    raise error_for(code if code in CODES else "not_connected", detail)


def _check(answer: EnrolmentAnswer, parts: TokenParts, key: bytes) -> None:
    """The answer is for this device and this key, by the authority the token names."""
    if answer.device != parts.device or DEVICE_ID.fullmatch(answer.device) is None:
        raise TrustError("wrong_device", f"the server enrolled {answer.device!r}, the token is for {parts.device!r}")
    check_certificate(answer.certificate.encode(), key, answer.ca.encode(), answer.device)
    if ca_fingerprint(ssl.PEM_cert_to_DER_cert(answer.ca.strip() + "\n")) != parts.ca_sha256:
        raise TrustError("certificate_invalid", "the answer names another authority than the token")


def _write(directory: Path, answer: EnrolmentAnswer, key: bytes, base: str) -> None:
    """A new directory, whole and durable, takes the place of the old one."""
    fresh, old = directory.with_name(f".{directory.name}.new"), directory.with_name(f".{directory.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    rest = {name: getattr(answer, name) for name in _AGENT_FIELDS} | {"server_url": base}
    for name, data in (
        ("device.key", key),
        ("device.pem", answer.certificate.encode()),
        ("ca.pem", answer.ca.encode()),
        ("root.json", answer.root.encode()),
        ("agent.json", msgspec.json.encode(rest)),
    ):
        write_durably(fresh / name, data, 0o600)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    sync_directory(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


_AGENT_FIELDS = ("device", "hardware_class", "site", "shard", "topic_prefix", "broker_host", "broker_port", "bench")
