"""Enrolment over real HTTPS: the token pins the server, the key stays here, and every wrong answer is named."""

import base64
import datetime
import hashlib
import http.server
import ipaddress
import json
import os
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wavegate_agent.adapters.network.enrol import enrol
from wavegate_agent.config import IdentityFiles, load_identity
from wavegate_shared.enrolment import TokenParts, ca_fingerprint, format_token
from wavegate_shared.errors import WavegateError

START = datetime.datetime(2026, 1, 1)
END = datetime.datetime(2036, 1, 1)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Registry:
    """A server's enrolment endpoint with an authority of its own."""

    def __init__(self, directory: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self._certificate("Test CA", self.key.public_key(), ca=True)
        self.directory = directory
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self.problem: tuple[int, dict[str, str]] | None = None
        self.ca_pem = pem(self.ca)
        self.requests: list[dict[str, str]] = []

    def token(self, device: str = "kiosk-1") -> str:
        der = self.ca.public_bytes(serialization.Encoding.DER)
        return format_token(TokenParts(device, os.urandom(32), ca_fingerprint(der)))

    def answer(self, body: dict[str, str]) -> dict[str, Any]:
        self.requests.append(body)
        request = x509.load_pem_x509_csr(body["csr"].encode())
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self.change(
            {
                "certificate": pem(self._certificate("kiosk-1", key)),
                "ca": self.ca_pem,
                "root": '{"signed": {}}',
                "device": "kiosk-1",
                "hardware_class": "arm",
                "site": "Hall 1",
                "shard": 3,
                "topic_prefix": "wavegate/v1",
                "broker_host": "broker.example",
                "broker_port": 8883,
            }
        )

    def serving(self) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        files = self.directory / "server.pem", self.directory / "server.key"
        files[0].write_text(pem(self._certificate("localhost", key.public_key(), server=True)))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _certificate(
        self, name: str, key: ec.EllipticCurvePublicKey, *, ca: bool = False, server: bool = False
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(START)
            .not_valid_after(END)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if server:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "server").mkdir()
    return Registry(tmp_path / "server")


@pytest.fixture
def url(registry: Registry) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, registry.ca_pem.encode(), "application/x-pem-file")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if registry.problem is not None:
                status, problem = registry.problem
                self._send(status, json.dumps(problem).encode(), "application/problem+json")
                return
            self._send(200, json.dumps(registry.answer(body)).encode(), "application/json")

        def log_message(self, *_arguments: object) -> None:
            pass

        def _send(self, status: int, data: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*registry.serving())
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # looks for the end often
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def refused(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(WavegateError) as caught:
        call()
    assert caught.value.code == code


def test_a_token_becomes_an_identity(registry: Registry, url: str, tmp_path: Path) -> None:
    place = tmp_path / "state" / "identity"
    enrol(registry.token(), url, place)
    identity = load_identity(IdentityFiles(place))
    assert (identity.device, identity.shard, identity.broker_host) == ("kiosk-1", 3, "broker.example")
    assert identity.server_url == url
    for file in place.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key((place / "device.key").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate((place / "device.pem").read_bytes())
    assert certificate.public_key() == key.public_key()
    assert b"PRIVATE" not in json.dumps(registry.requests).encode()


def test_another_server_is_not_talked_to(registry: Registry, url: str, tmp_path: Path) -> None:
    """The fingerprint in the token is of another authority: nothing is sent, least of all the token."""
    stranger = Registry(tmp_path)
    refused("certificate_invalid", lambda: enrol(stranger.token(), url, tmp_path / "i"))
    assert registry.requests == []
    assert not (tmp_path / "i").exists()


def test_a_server_that_shows_the_right_authority_but_is_not_its(registry: Registry, url: str, tmp_path: Path) -> None:
    other = Registry(tmp_path)
    registry.ca_pem = other.ca_pem
    refused("certificate_invalid", lambda: enrol(other.token(), url, tmp_path / "i"))
    assert registry.requests == []


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        ({"type": "urn:wavegate:error:token_invalid", "detail": "already used"}, "token_invalid"),
        ({"code": "certificate_invalid"}, "certificate_invalid"),
        ({"type": "about:blank"}, "not_connected"),
    ],
)
def test_the_servers_refusal_is_named(
    registry: Registry, url: str, tmp_path: Path, problem: dict[str, str], code: str
) -> None:
    registry.problem = (403, problem)
    refused(code, lambda: enrol(registry.token(), url, tmp_path / "i"))
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("token", ["", "wg1.x", "wg2.kiosk-1.a.b", "wg1.kiosk-1.!!!.???", "x" * 5000])
def test_a_token_that_is_none(url: str, tmp_path: Path, token: str) -> None:
    refused("token_invalid", lambda: enrol(token, url, tmp_path / "i"))


def test_a_certificate_for_someone_else(registry: Registry, url: str, tmp_path: Path) -> None:
    registry.change = lambda answer: {**answer, "device": "kiosk-2"}
    refused("wrong_device", lambda: enrol(registry.token(), url, tmp_path / "i"))
    registry.change = lambda answer: {**answer, "certificate": registry.ca_pem}
    refused("certificate_invalid", lambda: enrol(registry.token(), url, tmp_path / "i"))
    other = Registry(tmp_path)
    registry.change = lambda answer: {**answer, "ca": other.ca_pem}
    refused("certificate_invalid", lambda: enrol(registry.token(), url, tmp_path / "i"))
    registry.change = lambda _: {"certificate": "?"}
    refused("message_malformed", lambda: enrol(registry.token(), url, tmp_path / "i"))


def test_no_server(registry: Registry, tmp_path: Path) -> None:
    refused("not_connected", lambda: enrol(registry.token(), "https://127.0.0.1:1", tmp_path / "i"))
    refused("setup", lambda: enrol(registry.token(), "http://127.0.0.1:1", tmp_path / "i"))


def test_an_identity_is_replaced_only_on_purpose_and_only_whole(registry: Registry, url: str, tmp_path: Path) -> None:
    place = tmp_path / "identity"
    enrol(registry.token(), url, place)
    before = (place / "device.key").read_bytes()
    refused("conflict", lambda: enrol(registry.token(), url, place))
    registry.problem = (403, {"code": "token_invalid"})
    refused("token_invalid", lambda: enrol(registry.token(), url, place, replace=True))
    assert (place / "device.key").read_bytes() == before
    registry.problem = None
    enrol(registry.token(), url, place, replace=True)
    assert (place / "device.key").read_bytes() != before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".identity")] == []


def test_the_fingerprint_is_of_the_certificate() -> None:
    assert ca_fingerprint(b"der") == hashlib.sha256(b"der").digest()
    assert base64.urlsafe_b64encode(ca_fingerprint(b"der"))
