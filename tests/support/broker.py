"""A throwaway certificate authority, brokers on loopback, and a client to poke them with."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from wavegate_server.adapters.broker.mosquitto import MAX_QUEUED, find_mosquitto
from wavegate_server.adapters.broker.process import RunningBroker, start_broker
from wavegate_server.adapters.clock import now
from wavegate_server.config import Settings

__all__ = ["KINDS", "Client", "Files", "TestAuthority", "broker_settings", "running_broker", "tls_client", "utc"]

WAIT_S = 30.0
KINDS = [
    pytest.param("embedded", id="embedded"),
    pytest.param("mosquitto", id="mosquitto", marks=pytest.mark.mosquitto),
]


@dataclass(frozen=True, slots=True)
class Files:
    """An identity on disk."""

    certificate: Path
    key: Path
    ca: Path
    serial: str = ""


class TestAuthority:
    """Issues any certificate a test can think of; also a `BrokerAuthority`."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Throwaway CA")])
        self._start = now() - timedelta(minutes=5)
        self._ca_file = directory / "ca.pem"
        self._named: list[str] = []
        ca = self._builder(self._name, self._key.public_key())
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        ca = ca.add_extension(_usage(signs_certificates=True), critical=True)
        ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self._ca_file.write_bytes(ca.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        self.crl((), now())
        for service in ("publisher", "ingest-0", "ingest-1"):
            self.issue(service, unit="server")
        self.issue("broker", unit="server", sans=("localhost", "127.0.0.1"))

    @property
    def crl_path(self) -> Path:
        return self._dir / "crl.pem"

    def service(self, name: str) -> Files:
        return Files(self._dir / f"{name}.pem", self._dir / f"{name}.key", self._ca_file)

    def issue(
        self,
        name: str,
        *,
        unit: str | None = "device",
        sans: Iterable[str] = (),
        days: int = 30,
        names: tuple[str, ...] | None = None,
    ) -> Files:
        """A certificate with common name `name` (or `names`); a listener's when it has `sans`."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, each) for each in names or (name,)]
        if unit is not None:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        builder = self._builder(x509.Name(parts), key.public_key(), days=days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if sans else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([_san(each) for each in sans]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        files = Files(
            self._dir / f"{name}.pem", self._dir / f"{name}.key", self._ca_file, f"{certificate.serial_number:x}"
        )
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def crl(self, revoked: Iterable[str], at: datetime) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(at - timedelta(minutes=5)).next_update(at + timedelta(days=30))
        self._named = list(dict.fromkeys([*self._named, *revoked]))  # a revocation is never taken back
        for serial in self._named:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at)
            builder = builder.add_revoked_certificate(entry.build())
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self.crl_path.write_bytes(pem)
        self.crl_path.with_suffix(".json").write_text(json.dumps(self._named))
        return pem

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int = 30) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(self._start, self._start + timedelta(days=days - 1)))
            .not_valid_after(self._start + timedelta(days=days))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )


def broker_settings(directory: Path, kind: str) -> Settings:
    """Settings of a server in `directory` whose broker takes a free port."""
    return Settings(data_dir=directory, broker=kind, broker_port=0)


@contextlib.contextmanager
def running_broker(
    directory: Path, kind: str, *, max_queued: int = MAX_QUEUED
) -> Iterator[tuple[RunningBroker, TestAuthority]]:
    """A broker of that kind, and its authority; skips where Mosquitto is not installed."""
    if kind == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    authority = TestAuthority(directory / "ca")
    broker = start_broker(broker_settings(directory, kind), authority, max_queued=max_queued)
    try:
        yield broker, authority
    finally:
        broker.stop()


def tls_client(files: Files | None, ca: Path) -> ssl.SSLContext:
    """A client's TLS settings; without a certificate when `files` is None."""
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


class Client:
    """One MQTT client; a context manager. Received messages are waited for, never slept for."""

    def __init__(
        self,
        broker: RunningBroker,
        files: Files | None,
        ca: Path,
        client_id: str,
        *,
        will: str | None = None,
        clean: bool = True,
        qos: int = 1,
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()
        self.connected: bool | None = None  # None: no answer yet
        self.connections = 0
        self._subscribed: set[int] = set()
        self._qos = qos
        self._broker = broker
        session: dict[str, Any] = {} if version is MQTTProtocolVersion.MQTTv5 else {"clean_session": clean}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, **session)
        self._client.tls_set_context(tls_client(files, ca))
        if will is not None:
            self._client.will_set(will, b"will", qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.reconnect_delay_set(60, 60)  # a client that was refused or kicked stays away

    def open(self) -> bool:
        """Connect; whether the broker accepted."""
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=30)
        except (OSError, ssl.SSLError):
            self.connected = False
            return False
        self._client.loop_start()
        with self._changed:
            assert self._changed.wait_for(lambda: self.connected is not None, WAIT_S), "no answer to CONNECT"
        return bool(self.connected)

    def __enter__(self) -> "Client":
        assert self.open(), "the broker refused the connection"
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def cut(self) -> None:
        """End the connection without DISCONNECT, as a network does."""
        sock = self._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)

    def subscribe(self, *filters: str) -> None:
        """Subscribe and wait for the answer, whatever it says."""
        _, mid = self._client.subscribe([(each, self._qos) for each in filters])
        with self._changed:
            assert self._changed.wait_for(lambda: mid in self._subscribed or not self.connected, WAIT_S)

    def publish(self, topic: str, *payloads: bytes, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait until the broker has it (or dropped us for it)."""
        infos = [self._client.publish(topic, payload, qos=qos, retain=retain) for payload in payloads]
        for info in infos:
            for _ in range(int(WAIT_S / 0.05)):
                if info.is_published() or not self.connected:
                    break
                with contextlib.suppress(RuntimeError, ValueError):  # paho's words for: the connection went away
                    info.wait_for_publish(0.05)
            else:
                raise AssertionError("not published")

    def wait_for(self, payload: bytes) -> None:
        """Wait until a message with this payload was received."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(data == payload for _, data in self.received), WAIT_S)
        assert found, f"{payload!r} did not arrive; received {self.received}"

    def wait_disconnected(self) -> None:
        """Wait until the broker ended the connection."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connected is False, WAIT_S), "still connected"

    def payloads(self) -> list[bytes]:
        """What was received so far."""
        with self._changed:
            return [data for _, data in self.received]

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        with self._changed:
            self.connected = not reason.is_failure
            self.connections += self.connected
            self._changed.notify_all()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        with self._changed:
            self.connected = False
            self._changed.notify_all()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, _codes: Any, _properties: Any) -> None:
        with self._changed:
            self._subscribed.add(mid)
            self._changed.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        with self._changed:
            self.received.append((message.topic, message.payload))
            self._changed.notify_all()


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def utc(seconds: float) -> datetime:
    """An aware time from Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)
