"""A new key and certificate take the place of the old ones in the identity directory, whatever happens in between.

    1  next.key       written before anybody is asked, so that the answer always finds its key
    2  next.pem       written once it was checked: from here on the new pair is whole
    3  next.key -> device.key      two renames; between them key and certificate do not belong together,
    4  next.pem -> device.pem      which `settle` mends at the next start

Cut before 2, the device goes on with the old pair and asks again with the same key; cut after it, with the new one.
"""

import logging
from os import replace
from pathlib import Path

from wavegate_agent.adapters.disk.durable import sync_directory, write_durably
from wavegate_agent.adapters.network.certificates import (
    belong_together,
    check_certificate,
    new_key,
    request_for,
    term_of,
)
from wavegate_agent.core.renewal import Term

__all__ = ["IdentityRenewal"]

_LOG = logging.getLogger(__name__)
_PRIVATE = 0o600


class IdentityRenewal:
    """The pair of one identity directory, as enrolment wrote it; one process at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.key = directory / "device.key"
        self.certificate = directory / "device.pem"
        self.next_key = directory / "next.key"
        self.next_certificate = directory / "next.pem"

    def term(self) -> Term:
        """Of the present certificate. Raises TrustError `certificate_invalid`."""
        return term_of(self.certificate.read_bytes())

    def request(self, device: str) -> str:
        """A certificate request for the next key, which is made when there is none."""
        if not self.next_key.exists():
            write_durably(self.next_key, new_key(), _PRIVATE)
        return request_for(self.next_key.read_bytes(), device)

    def take(self, certificate: str, device: str) -> None:
        """Go over to the next key with the certificate that was issued for it.

        Raises:
            TrustError: `certificate_invalid`; then nothing changed.
        """
        data = certificate.encode()
        authority = (self._directory / "ca.pem").read_bytes()
        check_certificate(data, self.next_key.read_bytes() if self.next_key.exists() else b"", authority, device)
        write_durably(self.next_certificate, data, _PRIVATE)
        self._switch()
        _LOG.info("certificate_renewed device=%s serial=%s", device, self.term().serial)

    def settle(self) -> None:
        """At start, before the identity is used: finish or forget what a cut left half done. Repeatable."""
        if not self.next_certificate.exists():
            return
        data = self.next_certificate.read_bytes()
        for key in (self.next_key, self.key):
            if key.exists() and belong_together(key.read_bytes(), data):
                self._switch()
                return
        self.next_certificate.unlink()

    def _switch(self) -> None:
        if self.next_key.exists():
            replace(self.next_key, self.key)
            sync_directory(self._directory)
        replace(self.next_certificate, self.certificate)
        sync_directory(self._directory)
