"""Starts the broker as a supervised child, or points at an external one.

The child never outlives the server, is restarted when it dies, and is ended by its process id. Which broker:
`settings.broker` = `auto` (Mosquitto when it is installed, else the embedded one), `embedded`, `mosquitto` or `external`.
"""

import contextlib
import getpass
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Literal, Protocol

from wavegate_server.adapters import clock, with_parent
from wavegate_server.adapters.broker.clients import MqttAccess
from wavegate_server.adapters.broker.mosquitto import (
    MAX_PACKET_BYTES,
    MAX_QUEUED,
    MosquittoSettings,
    find_mosquitto,
    write_files,
)
from wavegate_server.adapters.files.durable import make_directory, write_durable
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError, WavegateError

__all__ = ["BrokerAuthority", "Kind", "RunningBroker", "read_revoked", "start_broker"]

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 8.0
RESTART_MIN_S = 0.2
RESTART_MAX_S = 10.0
POLL_S = 0.05
RELOAD_WAIT_S = 5.0
_REVOKED = "revoked.json"
CRL_EVERY_S = 24 * 3600.0
"""The revocation list is valid for 30 days; an expired one would lock every device out."""
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # told apart, not bound

_LOG = logging.getLogger(__name__)

Kind = Literal["embedded", "mosquitto", "external"]


class ServiceFiles(Protocol):
    """A service's identity on disk."""

    @property
    def certificate(self) -> Path:
        """Certificate (PEM)."""

    @property
    def key(self) -> Path:
        """Private key (PEM)."""

    @property
    def ca(self) -> Path:
        """The authority's certificate (PEM)."""


class BrokerAuthority(Protocol):
    """What the broker needs of the certificate authority (`adapters.authority.Authority`)."""

    @property
    def crl_path(self) -> Path:
        """Where the revocation list lies."""

    def service(self, name: str) -> ServiceFiles:
        """The files of a service's identity."""

    def crl(self, revoked: Iterable[str], now: datetime) -> bytes:
        """Sign and store the revocation list."""


class RunningBroker:
    """A broker that answers, at `host`:`port`.

    Attributes:
        kind: which one.
        host, port: where the server's own clients connect.
    """

    def __init__(
        self, settings: Settings, authority: BrokerAuthority, kind: Kind, port: int, max_queued: int = MAX_QUEUED
    ) -> None:
        self.kind: Kind = kind
        self.host = _ANY_ADDRESS.get(settings.broker_host, settings.broker_host)
        self.port = port
        self._settings = settings
        self._max_queued = max_queued
        self._authority = authority
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._answering = threading.Event()
        self._failed = threading.Event()
        self._lock = threading.Lock()
        self._revoked = read_revoked(settings.broker_dir)
        self._thread = threading.Thread(target=self._supervise, name="broker-supervisor", daemon=True)

    @property
    def pid(self) -> int | None:
        """Process id of the child; None for an external broker and between two lives."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    @property
    def keeps_sessions(self) -> bool:
        """Whether the ingest should ask for a persistent session (the embedded broker refuses one)."""
        return self.kind != "embedded"

    def access(self, identity: str) -> MqttAccess:
        """How a client of the server connects under `identity`, one of the authority's services."""
        files = self._authority.service(identity)
        return MqttAccess(self.host, self.port, identity, files.ca, files.certificate, files.key)

    def deny(self, revoked: Mapping[str, str]) -> None:
        """Shut these devices out, all of them and no others: `revoked` maps device id to certificate serial.

        Within about a second live connections end (Mosquitto: fall silent) and new ones are refused. The list survives
        restarts. An external broker reads what `wavegate broker config` writes, when its operator reloads it.
        """
        with self._lock:
            if revoked == self._revoked:
                return
            self._revoked = dict(revoked)
            make_directory(self._revoked_file.parent)
            write_durable(self._revoked_file, json.dumps(self._revoked, sort_keys=True).encode(), mode=0o600)
        if self.kind == "mosquitto":
            self._reload()

    def certificate_changed(self) -> None:
        """Its certificate was made anew: new connections get it (embedded: it looks itself every second)."""
        if self.kind == "mosquitto":
            self._reload()

    def stop(self) -> None:
        """End the child, by its process id. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    # --- the child ----------------------------------------------------------------------------------------------------

    @property
    def _revoked_file(self) -> Path:
        return self._settings.broker_dir / _REVOKED

    def _start(self) -> bool:
        """Start the supervisor; whether the broker answered in time."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and not self._failed.is_set():
            if self._ready.wait(POLL_S):
                return True
        return self._ready.is_set()

    def _supervise(self) -> None:
        pause_s = RESTART_MIN_S
        while not self._stopping.is_set():
            started = time.monotonic()
            self._answering.clear()
            code = self._live_once()
            if self._stopping.is_set():
                break
            if not self._ready.is_set():
                self._failed.set()
            pause_s = RESTART_MIN_S if time.monotonic() - started > RESTART_MAX_S else min(pause_s * 2, RESTART_MAX_S)
            _LOG.warning("broker_exited kind=%s code=%s restart_s=%.1f", self.kind, code, pause_s)
            self._stopping.wait(pause_s)
        _end(self._child)

    def _live_once(self) -> int | None:
        """One life of the child; its exit code, None when it could not be started or is to stop."""
        try:
            self._child = child = self._spawn()
        except (WavegateError, OSError) as error:
            _LOG.warning("broker_not_started kind=%s error=%s", self.kind, error)
            return None
        self._watch(child)
        if self._stopping.is_set():
            return None
        code = child.wait()
        _end(child)
        return code

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Until the child ends or the broker is to stop: report it ready, and sign the revocation list daily."""
        signed = time.monotonic()
        while child.poll() is None and not self._stopping.wait(POLL_S):
            if not self._answering.is_set() and self._answers():
                self._answering.set()
                self._ready.set()
                _LOG.info("broker_ready kind=%s port=%d pid=%d", self.kind, self.port, child.pid)
            if self.kind == "mosquitto" and time.monotonic() - signed > CRL_EVERY_S:
                signed = time.monotonic()
                self._reload()

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self._embedded_command() if self.kind == "embedded" else self._mosquitto_command()
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, close_fds=True
        )
        if child.stderr is not None:
            threading.Thread(target=_pass_on, args=(child.stderr, self.kind), name="broker-log", daemon=True).start()
        return child

    def _embedded_command(self) -> list[str]:
        files = self._authority.service("broker")
        path = self._settings.broker_dir / "embedded.json"
        config = {
            "host": self._settings.broker_host,
            "port": self.port,
            "ca": str(files.ca),
            "certificate": str(files.certificate),
            "key": str(files.key),
            "deny_list": str(self._revoked_file),
            "revoked_serials": str(self._authority.crl_path.with_suffix(".json")),
            "topic_prefix": self._settings.topic_prefix,
            "max_packet_bytes": MAX_PACKET_BYTES,
        }
        write_durable(path, json.dumps(config).encode(), mode=0o600)
        return [sys.executable, "-m", "wavegate_server.adapters.broker.embedded", str(path)]

    def _mosquitto_command(self) -> list[str]:
        program = find_mosquitto()
        if program is None:
            raise UsageError("setup", "mosquitto is not installed")
        path = self._write_mosquitto()
        launcher = Path(with_parent.__file__)
        return [sys.executable, "-I", "-S", str(launcher), str(os.getpid()), str(program), "-c", str(path)]

    def _write_mosquitto(self) -> Path:
        files = self._authority.service("broker")
        with self._lock:
            self._sign_revocations()
            settings = MosquittoSettings(
                directory=self._settings.broker_dir,
                host=self._settings.broker_host or "127.0.0.1",
                port=self.port,
                ca=files.ca,
                certificate=files.certificate,
                key=files.key,
                topics=self._settings.topics,
                crl=self._authority.crl_path,
                run_as=getpass.getuser() if os.geteuid() == 0 else None,
                max_queued=self._max_queued,
            )
            return write_files(settings, self._revoked)

    def _sign_revocations(self) -> None:
        serials = sorted(serial for serial in self._revoked.values() if serial)
        try:
            self._authority.crl(serials, clock.now())
        except (WavegateError, OSError) as error:  # the authority's key may be elsewhere: the present list stays
            _LOG.warning("revocation_list_not_signed error=%s", error)

    def _reload(self) -> None:
        self._write_mosquitto()
        if not self._answering.wait(RELOAD_WAIT_S):  # it is starting, and a signal now would end it
            return
        child = self._child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGHUP)

    def _answers(self) -> bool:
        """Whether a TLS handshake succeeds, as the publisher."""
        files = self._authority.service("publisher")
        context = ssl.create_default_context(cafile=files.ca)
        context.check_hostname = False  # is it up, not who is it: the clients check that
        context.load_cert_chain(files.certificate, files.key)
        try:
            with (
                socket.create_connection((self.host, self.port), timeout=2) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as tls,
            ):
                with contextlib.suppress(OSError):
                    tls.unwrap()  # a polite end: Mosquitto logs any other
                return True
        except OSError:
            return False


def start_broker(settings: Settings, authority: BrokerAuthority, *, max_queued: int = MAX_QUEUED) -> RunningBroker:
    """The broker the settings ask for, once it answers. `broker_port` 0 takes a free port.

    Args:
        settings: which broker, where.
        authority: certificates and the revocation list.
        max_queued: messages Mosquitto keeps for one client that is slow or away.

    Raises:
        UsageError: `setup` when Mosquitto is asked for and not installed, or the broker does not come up.
    """
    kind = _choose(settings.broker)
    if kind == "external":
        return RunningBroker(settings, authority, kind, settings.broker_port)
    settings.broker_dir.mkdir(parents=True, exist_ok=True)
    attempts = 1 if settings.broker_port else 3
    for _ in range(attempts):
        port = settings.broker_port or _free_port(settings.broker_host)
        broker = RunningBroker(settings, authority, kind, port, max_queued)
        if broker._start():
            return broker
        broker.stop()
    raise UsageError("setup", f"the {kind} broker did not start; is port {settings.broker_port or 'any'} free?")


def _choose(wanted: str) -> Kind:
    match wanted:
        case "auto":
            return "mosquitto" if find_mosquitto() else "embedded"
        case "embedded":
            return "embedded"
        case "external":
            return "external"
        case "mosquitto" if find_mosquitto():
            return "mosquitto"
        case "mosquitto":
            raise UsageError("setup", "mosquitto is not installed; install it or set WAVEGATE_BROKER=embedded")
        case _:
            raise UsageError("setup", f"WAVEGATE_BROKER is {wanted!r}; use auto, embedded, mosquitto or external")


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def read_revoked(broker_dir: Path) -> dict[str, str]:
    """Who is shut out, as the broker was last told: device id -> certificate serial."""
    try:
        text = (broker_dir / _REVOKED).read_bytes()
        return {str(name): str(serial) for name, serial in json.loads(text).items()}
    except FileNotFoundError:
        return {}


def _pass_on(stream: IO[bytes], kind: str) -> None:
    """The child's own log lines, into ours."""
    with stream:
        for line in stream:
            _LOG.info("broker_says kind=%s text=%s", kind, line.decode(errors="replace").rstrip())


def _end(child: subprocess.Popen[bytes] | None) -> None:
    """End a child that may be over already, and let go of its pipe."""
    if child is None:
        return
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdin is not None:
        child.stdin.close()
