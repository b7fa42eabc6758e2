"""Certificates through real TLS handshakes with Python's strict verification, and everything a request cannot do."""

import ssl
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.trust import make_csr
from wavegate_server.adapters import clock
from wavegate_server.adapters.trust.authority import SERVICES, Authority, ServiceFiles, is_reserved
from wavegate_shared.errors import TrustError, UsageError

NOW = clock.now()  # handshakes check validity by the system clock


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca") / "ca")
    made.init(NOW, ["wavegate.example"])
    return made


def strict(purpose: int, files: ServiceFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context


def shake_hands(server: ServiceFiles, client: ServiceFiles, name: str, crl: Path | None = None) -> Mapping[str, object]:
    """A TLS handshake in memory; what the server learned of the client."""
    listening = strict(ssl.PROTOCOL_TLS_SERVER, server)
    if crl is not None:
        listening.load_verify_locations(crl)
        listening.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = strict(ssl.PROTOCOL_TLS_CLIENT, client).wrap_bio(to_client, to_server, server_hostname=name)
    far = listening.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return far.getpeercert() or {}


def device_files(authority: Authority, directory: Path, device: str = "kiosk-1") -> ServiceFiles:
    key = ec.generate_private_key(ec.SECP256R1())
    issued = authority.issue_device(make_csr(key=key), device, NOW)
    files = ServiceFiles(directory / "device.pem", directory / "device.key", authority.service("server").ca)
    files.certificate.write_text(issued.pem)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.mark.parametrize("name", ["wavegate.example", "localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("listener", ["server", "broker"])
def test_strict_mutual_tls_by_every_name(authority: Authority, tmp_path: Path, listener: str, name: str) -> None:
    peer = shake_hands(authority.service(listener), device_files(authority, tmp_path), name)
    assert (("commonName", "kiosk-1"),) in peer["subject"]  # type: ignore[operator]
    assert (("organizationalUnitName", "device"),) in peer["subject"]  # type: ignore[operator]


@pytest.mark.parametrize("client", ["ingest-0", "publisher"])
def test_the_servers_own_clients(authority: Authority, client: str) -> None:
    peer = shake_hands(authority.service("broker"), authority.service(client), "localhost")
    assert (("commonName", client),) in peer["subject"]  # type: ignore[operator]
    assert (("organizationalUnitName", "server"),) in peer["subject"]  # type: ignore[operator]


def test_a_device_cannot_pass_for_a_listener(authority: Authority, tmp_path: Path) -> None:
    device = device_files(authority, tmp_path, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(device, authority.service("publisher"), "localhost")


def test_another_authoritys_device_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    other.init(NOW, [])
    stranger = device_files(other, tmp_path)
    stranger = ServiceFiles(stranger.certificate, stranger.key, authority.service("server").ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(authority.service("server"), stranger, "localhost")


def test_the_listeners_certificate_names_the_public_name_first(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.service("broker").certificate.read_bytes())
    (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common.value == "wavegate.example"


class TestDevice:
    def test_nothing_but_the_key_comes_from_the_request(self, authority: Authority) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        issued = authority.issue_device(_greedy_csr(key), "kiosk-7", NOW)
        certificate = x509.load_pem_x509_certificate(issued.pem.encode())
        (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert common.value == "kiosk-7"
        assert certificate.public_key() == key.public_key()
        extensions = certificate.extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(x509.SubjectAlternativeName)

    def test_the_answer_matches_the_certificate(self, authority: Authority) -> None:
        issued = authority.issue_device(make_csr(), "kiosk-7", NOW)
        certificate = x509.load_pem_x509_certificate(issued.pem.encode())
        assert int(issued.serial, 16) == certificate.serial_number
        assert issued.expires == certificate.not_valid_after_utc
        assert issued.expires - NOW <= timedelta(days=90)
        pem = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert issued.public_key_pem.encode() == pem

    @pytest.mark.parametrize(
        "name", ["publisher", "ingest-0", "ingest-99", "Ingest-x", "server", "broker", "a/b", "dev+", ""]
    )
    def test_names_that_belong_to_the_server_or_to_nobody(self, authority: Authority, name: str) -> None:
        with pytest.raises(UsageError, match="cannot be a device's id"):
            authority.issue_device(make_csr(), name, NOW)

    @pytest.mark.parametrize(
        "csr", ["", "junk", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "é"]
    )
    def test_not_a_request(self, authority: Authority, csr: str) -> None:
        with pytest.raises(TrustError, match="certificate_invalid"):
            authority.issue_device(csr, "kiosk-7", NOW)

    def test_a_request_for_somebody_elses_key(self, authority: Authority) -> None:
        """The signature does not hold: no proof that the sender has the key."""
        good = x509.load_pem_x509_csr(make_csr().encode()).public_bytes(Encoding.DER)
        forged = x509.load_der_x509_csr(good[:-4] + bytes(4)).public_bytes(Encoding.PEM).decode()
        with pytest.raises(TrustError, match="certificate_invalid"):
            authority.issue_device(forged, "kiosk-7", NOW)

    def test_other_kinds_of_keys(self, authority: Authority) -> None:
        keys = (
            ed25519.Ed25519PrivateKey.generate(),
            rsa.generate_private_key(65537, 2048),
            ec.generate_private_key(ec.SECP384R1()),
        )
        for key in keys:
            algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
            request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
            with pytest.raises(TrustError, match=r"P-256"):
                authority.issue_device(request.public_bytes(Encoding.PEM).decode(), "kiosk-7", NOW)

    def test_an_oversized_request(self, authority: Authority) -> None:
        with pytest.raises(TrustError, match="at most"):
            authority.issue_device(make_csr() + " " * 9000, "kiosk-7", NOW)


class TestRevocation:
    def test_a_named_certificate_is_refused_and_others_pass(self, authority: Authority, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        bad, good = device_files(authority, tmp_path / "a"), device_files(authority, tmp_path / "b")
        serial = x509.load_pem_x509_certificate(bad.certificate.read_bytes()).serial_number
        authority.crl([f"{serial:x}"], NOW)
        server = authority.service("broker")
        shake_hands(server, good, "localhost", authority.crl_path)
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            shake_hands(server, bad, "localhost", authority.crl_path)

    def test_a_caller_that_knows_less_takes_nothing_back(self, tmp_path: Path) -> None:
        authority = fresh(tmp_path)
        authority.crl(["a1"], NOW)
        authority.crl([], NOW + timedelta(days=1))
        authority.crl(["b2"], NOW + timedelta(days=2))
        assert serials(authority) == {0xA1, 0xB2}

    def test_what_has_expired_leaves_the_list(self, tmp_path: Path) -> None:
        authority = fresh(tmp_path)
        authority.crl(["a1"], NOW)
        authority.crl([], NOW + timedelta(days=92))
        assert serials(authority) == set()

    def test_due_daily_and_valid_for_thirty_days(self, tmp_path: Path) -> None:
        authority = fresh(tmp_path)
        assert not authority.crl_due(NOW + timedelta(hours=23))
        assert authority.crl_due(NOW + timedelta(hours=25))
        assert authority.expiries()["crl"] > NOW + timedelta(days=29)
        authority.crl_path.unlink()
        assert authority.crl_due(NOW)


def fresh(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "ca")
    made.init(NOW, ["wavegate.example"])
    return made


def serials(authority: Authority) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl(authority.crl_path.read_bytes())}


class TestInit:
    def test_a_second_call_changes_nothing(self, tmp_path: Path) -> None:
        authority = fresh(tmp_path)
        before = {path: path.read_bytes() for path in (tmp_path / "ca").iterdir()}
        authority.init(NOW + timedelta(days=100), ["wavegate.example"])
        assert {path: path.read_bytes() for path in (tmp_path / "ca").iterdir()} == before

    def test_all_keys_are_the_owners_alone(self, tmp_path: Path) -> None:
        keys = fresh(tmp_path).key_files()
        assert len(keys) == len(SERVICES) + 1
        assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}

    def test_service_certificates_are_renewed_before_they_end(self, tmp_path: Path) -> None:
        authority = fresh(tmp_path)
        later = NOW + timedelta(days=380)
        ca = authority.ca_pem()
        authority.init(later, ["wavegate.example"])
        ends = authority.expiries()
        assert all(ends[name] > later + timedelta(days=300) for name in SERVICES)
        assert authority.ca_pem() == ca

    def test_a_new_public_name_gets_into_the_listeners_certificates(self, tmp_path: Path) -> None:
        authority = fresh(tmp_path)
        publisher = authority.service("publisher").certificate.read_bytes()
        authority.init(NOW, ["other.example", "10.1.2.3"])
        shake_hands(authority.service("server"), authority.service("publisher"), "10.1.2.3")
        assert authority.service("publisher").certificate.read_bytes() == publisher

    def test_a_certificate_without_its_key_is_made_anew(self, tmp_path: Path) -> None:
        authority = fresh(tmp_path)
        authority.service("server").key.unlink()
        authority.init(NOW, ["wavegate.example"])
        assert authority.service("server").key.is_file()

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="setup"):
            Authority(tmp_path).ca_pem()
        with pytest.raises(UsageError, match="setup"):
            Authority(tmp_path).service("server")

    def test_a_key_that_does_not_belong_to_the_certificate(self, tmp_path: Path) -> None:
        fresh(tmp_path)
        other = Authority(tmp_path / "other")
        other.init(NOW, [])
        (tmp_path / "ca" / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
        with pytest.raises(UsageError, match="does not belong"):
            Authority(tmp_path / "ca").ca_pem()


def test_only_service_names_get_service_certificates(authority: Authority) -> None:
    with pytest.raises(UsageError, match="not a part of the server"):
        authority.issue_service("kiosk-1", [], NOW)
    assert is_reserved("ingest-12")
    assert not is_reserved("kiosk-1")


def test_certificates_start_in_the_past_for_clocks_that_lag(authority: Authority) -> None:
    issued = authority.issue_device(make_csr(), "kiosk-7", datetime(2026, 3, 1, 12, tzinfo=UTC))
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    assert certificate.not_valid_before_utc == datetime(2026, 3, 1, 11, tzinfo=UTC)


def _greedy_csr(key: ec.EllipticCurvePrivateKey) -> str:
    """Asks to be a CA called publisher, with a server's name and usage."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "publisher")])
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
