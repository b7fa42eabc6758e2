"""Choosing, starting, watching and stopping the broker."""

import json
import os
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.broker import KINDS, Client, Files, TestAuthority, broker_settings, running_broker
from tests.support.waiting import wait_until
from wavegate_server.adapters.broker import process
from wavegate_server.adapters.broker.clients import Downlink
from wavegate_server.adapters.broker.mosquitto import find_mosquitto
from wavegate_server.adapters.broker.process import RunningBroker, read_revoked, start_broker
from wavegate_server.adapters.clock import now
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError
from wavegate_shared.topics import Topics

TOPICS = Topics()


def gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_keeps_its_port_through_a_crash_and_ends_when_told(tmp_path: Path, kind: str) -> None:
    with running_broker(tmp_path, kind) as (broker, authority):
        files = authority.issue("dev-a")
        assert broker.kind == kind
        assert broker.host == "127.0.0.1"
        first, port = broker.pid, broker.port
        with Client(broker, files, files.ca, "dev-a"):
            pass
        assert first is not None
        os.kill(first, 9)
        wait_until(lambda: broker.pid not in (None, first))

        def back() -> bool:
            client = Client(broker, files, files.ca, "dev-a")
            try:
                return client.open()
            finally:
                client.close()

        wait_until(back)
        assert broker.port == port
        last = broker.pid
    assert gone(last)
    broker.stop()


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_a_denied_device_stays_denied_through_a_restart_of_the_server(tmp_path: Path, kind: str) -> None:
    with running_broker(tmp_path, kind) as (broker, authority):
        files = authority.issue("dev-a")
        broker.deny({"dev-a": files.serial, "dev-without-certificate": ""})
    assert read_revoked(tmp_path / "broker") == {"dev-a": files.serial, "dev-without-certificate": ""}
    again = start_broker(broker_settings(tmp_path, kind), authority)
    try:
        client = Client(again, files, files.ca, "dev-a")
        client.open()
        wait_until(lambda: not client.connected)
        client.close()
        again.deny({})
        other = authority.issue("dev-b")
        with Client(again, other, other.ca, "dev-b"):
            pass
    finally:
        again.stop()


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_it_works_with_the_servers_own_authority(tmp_path: Path, kind: str) -> None:
    if kind == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    authority = Authority(tmp_path / "ca")
    authority.init(now(), ["wavegate.example"])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    issued = authority.issue_device(request.public_bytes(Encoding.PEM).decode(), "dev-a", now())
    files = Files(tmp_path / "dev-a.pem", tmp_path / "dev-a.key", tmp_path / "ca" / "ca.pem", issued.serial)
    files.certificate.write_text(issued.pem)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    broker = start_broker(broker_settings(tmp_path, kind), authority)
    down = Downlink(broker.access("publisher"))
    down.start()
    try:
        with Client(broker, files, files.ca, "dev-a") as device:
            device.subscribe(TOPICS.device_filter("dev-a"))
            down.publish(TOPICS.cmd("dev-a"), b"hello", 1)
            device.wait_for(b"hello")
            broker.deny({"dev-a": issued.serial})

            def out() -> bool:
                again = Client(broker, files, files.ca, "dev-a")
                try:
                    return not again.open()
                finally:
                    again.close()

            wait_until(out)
    finally:
        down.close()
        broker.stop()


def test_an_external_broker_is_not_started(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path / "ca")
    settings = Settings(data_dir=tmp_path, broker="external", broker_host="broker.example", broker_port=1234)
    broker = start_broker(settings, authority)
    assert (broker.kind, broker.pid, broker.host, broker.port) == ("external", None, "broker.example", 1234)
    assert broker.keeps_sessions
    access = broker.access("ingest-0")
    assert (access.identity, access.certificate) == ("ingest-0", tmp_path / "ca" / "ingest-0.pem")
    broker.deny({"dev-a": "77"})
    assert json.loads((tmp_path / "broker" / "revoked.json").read_text()) == {"dev-a": "77"}
    broker.stop()


def test_auto_takes_mosquitto_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_mosquitto", lambda: Path("/usr/sbin/mosquitto"))
    assert process._choose("auto") == "mosquitto"
    monkeypatch.setattr(process, "find_mosquitto", lambda: None)
    assert process._choose("auto") == "embedded"
    with pytest.raises(UsageError, match="not installed"):
        process._choose("mosquitto")


def test_a_broker_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="WAVEGATE_BROKER"):
        start_broker(Settings(data_dir=tmp_path, broker="hivemq"), TestAuthority(tmp_path / "ca"))


@pytest.mark.e2e
def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(data_dir=tmp_path, broker="embedded", broker_port=port)
        with pytest.raises(UsageError, match=str(port)):
            start_broker(settings, TestAuthority(tmp_path / "ca"))


def test_all_interfaces_are_reached_over_loopback(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, broker="external", broker_host="0.0.0.0")
    assert RunningBroker(settings, TestAuthority(tmp_path / "ca"), "external", 1).host == "127.0.0.1"


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_made_anew_is_served_without_a_restart(tmp_path: Path, kind: str) -> None:
    """Connections that are open stay; the next one sees the new certificate."""
    with running_broker(tmp_path, kind) as (broker, authority):
        files = authority.issue("dev-a")

        def served() -> int:
            context = ssl.create_default_context(cafile=files.ca)
            context.check_hostname = False
            context.load_cert_chain(files.certificate, files.key)
            with (
                socket.create_connection((broker.host, broker.port), timeout=5) as plain,
                context.wrap_socket(plain) as tls,
            ):
                return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number

        before, pid = served(), broker.pid
        with Client(broker, files, files.ca, "dev-a") as client:
            authority.issue("broker", unit="server", sans=("localhost", "127.0.0.1"))
            broker.certificate_changed()
            wait_until(lambda: served() != before, "the new certificate")
            assert client.connected
        assert broker.pid == pid


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_that_was_replaced_is_refused_and_the_new_one_is_not(tmp_path: Path, kind: str) -> None:
    """The device's name stays good: only the certificate of its life before is over."""
    with running_broker(tmp_path, kind) as (broker, authority):
        old = authority.issue("dev-a")
        certificate, key = (path.rename(path.with_name(f"old-{path.name}")) for path in (old.certificate, old.key))
        kept = Files(certificate, key, old.ca)
        new = authority.issue("dev-a")
        with Client(broker, kept, kept.ca, "dev-a") as client:
            authority.crl([old.serial], now())
            broker.certificate_changed()
            if kind == "embedded":  # Mosquitto looks at its list when somebody connects
                wait_until(lambda: not client.connected, "the end of the old connection")

        def refused() -> bool:
            late = Client(broker, kept, kept.ca, "dev-a")
            try:
                return not late.open()
            except OSError:
                return True
            finally:
                late.close()

        wait_until(refused, "the refusal of the old certificate")
        with Client(broker, new, new.ca, "dev-a") as client:
            assert client.connected
