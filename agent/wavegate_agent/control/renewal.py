"""Renewal of the device's certificate by the running agent: asks from two thirds of its life on, until it has the next one.

Over MQTT while there is a connection. Without one, because the certificate has ended or nothing was reached for long, a process
of its own asks over HTTPS (`wavegate-agent renew`), once an hour. After a change the connection is made anew and reports are signed with
the new key. Not here: the files (`adapters/network/identity_renewal`), when it is time (`core/renewal`).
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from wavegate_agent.adapters.network.identity_renewal import IdentityRenewal
from wavegate_agent.core.renewal import due
from wavegate_shared.errors import TrustError
from wavegate_shared.wire import Renewed, RenewRequest, encode

__all__ = ["CertificateRenewal"]

_LOG = logging.getLogger(__name__)
_LOOK_S = 60.0
_ASK_AGAIN_S = 60.0
_REFUSED_S = 3600.0
_OFFLINE_S = 600.0


class CertificateRenewal:
    """Keeps the certificate from ending; `turn` and `answer` come from the agent's threads.

    Args:
        state: the state directory.
        device: its id.
        ask: sends a request; False when there is no connection.
        now: trusted time.
        changed: called after the device went over to a new pair, with the new private key (PEM).
        wake: has `turn` called soon.
    """

    def __init__(
        self,
        state: Path,
        device: str,
        *,
        ask: Callable[[bytes], bool],
        now: Callable[[], datetime],
        changed: Callable[[bytes], None],
        wake: Callable[[], None],
    ) -> None:
        self._state, self._device = state, device
        self._ask, self._now, self._changed, self._wake = ask, now, changed, wake
        self._identity = IdentityRenewal(state / "identity")
        self.term = self._identity.term()
        self.in_use = ""
        """Serial number of the certificate that the present connection was made with."""
        self._answer: Renewed | None = None
        self._next = self._offline_since = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None

    def connected(self) -> None:
        """A connection was made with the present certificate."""
        self.in_use = self.term.serial

    def answer(self, message: Renewed) -> None:
        """The server's answer; handled in the next turn."""
        self._answer = message
        self._wake()

    def turn(self, connected: bool) -> None:
        """Do what is due."""
        instant = time.monotonic()
        if connected:
            self._offline_since = instant
        self._look_at_process()
        answer, self._answer = self._answer, None
        if answer is not None:
            self._take(answer)
        if instant < self._next:
            return
        self._next = instant + _LOOK_S
        if self._identity.term().serial != self.term.serial:  # somebody called `wavegate-agent renew`
            self._go_over()
        if not due(self.term, self._device, self._now()):
            return
        if connected:
            self._next = instant + _ASK_AGAIN_S
            self._ask(encode(RenewRequest(csr=self._identity.request(self._device))))
        elif self._process is None and (self._now() >= self.term.ends or instant - self._offline_since > _OFFLINE_S):
            self._next = instant + _REFUSED_S
            self._start_process()

    def close(self) -> None:
        """End the process, if one runs; what it did so far is settled at the next start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _take(self, answer: Renewed) -> None:
        try:
            if answer.code is not None:
                raise TrustError("renewal_refused", f"{answer.code}: {answer.detail}")
            self._identity.take(answer.certificate, self._device)
        except TrustError as error:
            _LOG.warning("renewal_failed device=%s code=%s detail=%s", self._device, error.code, error.detail)
            self._next = time.monotonic() + _REFUSED_S
            return
        self._go_over()

    def _start_process(self) -> None:
        command = [sys.executable, "-m", "wavegate_agent.cli", "renew", "--state", str(self._state)]
        _LOG.info("renewal_over_https device=%s ends=%s", self._device, self.term.ends.isoformat())
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def _look_at_process(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        self._process = None
        if self._identity.term().serial != self.term.serial:
            self._go_over()

    def _go_over(self) -> None:
        self.term = self._identity.term()
        self._changed(self._identity.key.read_bytes())
