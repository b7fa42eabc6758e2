"""Renewal over HTTPS, for a device whose certificate ended while it was switched off: its old key proves who asks.

Runs in a process of its own (`wavegate-agent renew`), because the control process never loads httpx.
"""

import base64
import ssl
from pathlib import Path
from typing import Any

import httpx

from wavegate_agent.adapters.network.certificates import sign
from wavegate_agent.adapters.network.enrol import TIMEOUT_S, asked, raise_for_problem
from wavegate_agent.adapters.network.identity_renewal import IdentityRenewal
from wavegate_agent.core.renewal import Term
from wavegate_shared.errors import TrustError
from wavegate_shared.wire import RENEWAL_PROOF

__all__ = ["renew"]


def renew(directory: Path, device: str, server: str) -> Term:
    """Ask the server for a certificate for a new key and go over to it; gives the new one's life.

    Args:
        directory: the identity directory.
        device: this device's id.
        server: the server's URL, as enrolment wrote it.

    Raises:
        TrustError: `renewal_refused` (a new token is needed), `certificate_invalid`.
        TransferError: `not_connected`.
    """
    identity = IdentityRenewal(directory)
    identity.settle()
    csr = identity.request(device)
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    with httpx.Client(verify=context, timeout=TIMEOUT_S, base_url=server) as client:
        challenge = _answer(client, server, "/api/v1/renew/challenge", {"device": device}, "challenge")
        said = RENEWAL_PROOF + challenge.encode() + b"\n" + csr.encode()
        signature = base64.b64encode(sign(identity.key.read_bytes(), said)).decode()
        body = {"device": device, "csr": csr, "challenge": challenge, "signature": signature}
        certificate = _answer(client, server, "/api/v1/renew", body, "certificate")
    identity.take(certificate, device)
    return identity.term()


def _answer(client: httpx.Client, server: str, path: str, body: dict[str, str], field: str) -> str:
    response = asked(lambda: client.post(path, json=body), server)
    raise_for_problem(response)
    try:
        found: Any = response.json()[field]
    except (ValueError, KeyError, TypeError) as error:
        raise TrustError("message_malformed", f"{server} answered something else than a {field}") from error
    return str(found)
