"""Tokens on a real SQLite file, with real certificates."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine
from sqlmodel import SQLModel, select

from tests.support.trust import NOW, make_csr
from wavegate_server.adapters.database.connection import open_engine, read, sqlite_url, write
from wavegate_server.adapters.database.tables import Device, DeviceEvent, EnrolToken, Watermark
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.adapters.trust.enrolment import (
    Enrolled,
    Revocation,
    create_token,
    redeem,
    revoke_device,
    revoked_serials,
)
from wavegate_shared.enrolment import TokenParts, format_token, parse_token
from wavegate_shared.errors import TrustError, UsageError, WavegateError

DEVICE = "kiosk-1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.init(NOW, [])
    return made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(sqlite_url(tmp_path / "test.db"))
    SQLModel.metadata.create_all(opened)
    with write(opened) as session:
        session.add(Device(id=DEVICE, hardware_class="arm", site="berlin", shard=3, created_at=NOW))
    yield opened
    opened.dispose()


def token_for(engine: Engine, authority: Authority, device: str = DEVICE) -> str:
    with write(engine) as session:
        return create_token(session, authority, device, now=NOW)


def test_enrolled_again_a_device_may_count_from_one_again(engine: Engine, authority: Authority) -> None:
    """Its agent lost its state; the old mark would make everything it says a repetition."""
    with write(engine) as session:
        session.add(Watermark(device_id=DEVICE, boot=7, seq=99))
        session.add(Watermark(device_id="other", boot=7, seq=99))
    enrol(engine, authority, token_for(engine, authority))
    with read(engine) as session:
        assert [row.device_id for row in session.exec(select(Watermark))] == ["other"]


def enrol(engine: Engine, authority: Authority, token: str, csr: str = "", after: timedelta = timedelta(0)) -> Enrolled:
    with write(engine) as session:
        return redeem(session, authority, token, csr or make_csr(), NOW + after)


def revoke(engine: Engine) -> Revocation:
    with write(engine) as session:
        return revoke_device(session, DEVICE, NOW, reason="stolen")


def device_of(engine: Engine) -> Device:
    with read(engine) as session:
        device = session.get(Device, DEVICE)
        assert device is not None
        return device


def refused(code: str, engine: Engine, authority: Authority, token: str, **options: object) -> WavegateError:
    with pytest.raises(WavegateError) as caught:
        enrol(engine, authority, token, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value


def test_a_token_becomes_a_certificate_with_the_registrys_name(engine: Engine, authority: Authority) -> None:
    answer = enrol(engine, authority, token_for(engine, authority), make_csr("publisher"))
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common.value == answer.device == DEVICE
    assert (answer.hardware_class, answer.site, answer.shard) == ("arm", "berlin", 3)
    assert answer.ca == authority.ca_pem()


def test_the_device_is_active_with_key_serial_and_times(engine: Engine, authority: Authority) -> None:
    answer = enrol(engine, authority, token_for(engine, authority))
    device = device_of(engine)
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    assert device.state == "active"
    assert int(device.certificate_serial, 16) == certificate.serial_number
    assert device.certificate_expires == certificate.not_valid_after_utc
    assert device.enrolled_at == NOW
    assert device.public_key.startswith("-----BEGIN PUBLIC KEY-----")
    assert device.revision == 2
    with read(engine) as session:
        assert [event.kind for event in session.exec(select(DeviceEvent))] == ["enrolled"]


def test_the_token_pins_the_authority_and_is_stored_as_a_hash(engine: Engine, authority: Authority) -> None:
    token = token_for(engine, authority)
    assert parse_token(token).ca_sha256 == authority.ca_sha256()
    secret = token.split(".")[-2]
    with read(engine) as session:
        row = session.exec(select(EnrolToken)).one()
        assert secret not in row.model_dump_json()
        assert row.expires_at == NOW + timedelta(hours=24)


class TestRefused:
    def test_used_twice(self, engine: Engine, authority: Authority) -> None:
        token = token_for(engine, authority)
        enrol(engine, authority, token)
        serial = device_of(engine).certificate_serial
        assert "already used" in str(refused("token_invalid", engine, authority, token))
        assert device_of(engine).certificate_serial == serial

    def test_expired(self, engine: Engine, authority: Authority) -> None:
        token = token_for(engine, authority)
        error = refused("token_invalid", engine, authority, token, after=timedelta(hours=24))
        assert "expired" in str(error)

    def test_unknown(self, engine: Engine, authority: Authority) -> None:
        made_up = format_token(TokenParts(DEVICE, bytes(32), authority.ca_sha256()))
        assert "unknown" in str(refused("token_invalid", engine, authority, made_up))

    def test_for_another_device_than_it_was_made_for(self, engine: Engine, authority: Authority) -> None:
        with write(engine) as session:
            session.add(Device(id="kiosk-2", hardware_class="arm", site="berlin", shard=3, created_at=NOW))
        parts = parse_token(token_for(engine, authority))
        moved = format_token(TokenParts("kiosk-2", parts.secret, parts.ca_sha256))
        refused("token_invalid", engine, authority, moved)

    @pytest.mark.parametrize("token", ["", "wg1", "wg1.kiosk-1.x.y", "' OR 1=1 --"])
    def test_malformed(self, engine: Engine, authority: Authority, token: str) -> None:
        refused("token_invalid", engine, authority, token)

    def test_of_another_server(self, engine: Engine, authority: Authority) -> None:
        parts = parse_token(token_for(engine, authority))
        other = format_token(TokenParts(DEVICE, parts.secret, bytes(32)))
        assert "another server" in str(refused("token_invalid", engine, authority, other))

    def test_replaced_by_a_newer_token(self, engine: Engine, authority: Authority) -> None:
        old = token_for(engine, authority)
        new = token_for(engine, authority)
        refused("token_invalid", engine, authority, old)
        enrol(engine, authority, new)

    def test_of_a_device_that_is_revoked_meanwhile(self, engine: Engine, authority: Authority) -> None:
        token = token_for(engine, authority)
        revoke(engine)
        assert "expired" in str(refused("token_invalid", engine, authority, token))

    def test_of_a_revoked_device_even_if_the_token_had_lived_on(self, engine: Engine, authority: Authority) -> None:
        revoke(engine)
        with write(engine) as session:
            device = session.get_one(Device, DEVICE)
            device.state = "active"
            token = create_token(session, authority, DEVICE, now=NOW)
            device.state = "revoked"
        assert "revoked" in str(refused("token_invalid", engine, authority, token))

    def test_a_broken_request_leaves_the_token_good(self, engine: Engine, authority: Authority) -> None:
        token = token_for(engine, authority)
        refused("certificate_invalid", engine, authority, token, csr="junk")
        assert enrol(engine, authority, token).device == DEVICE


def test_fifty_at_once_get_one_certificate(engine: Engine, authority: Authority) -> None:
    token, csrs = token_for(engine, authority), [make_csr() for _ in range(50)]
    start = threading.Barrier(50)

    def attempt(csr: str) -> str:
        start.wait(30)
        try:
            return enrol(engine, authority, token, csr).certificate
        except TrustError as error:
            return error.code

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(attempt, csrs))
    certificates = [outcome for outcome in outcomes if outcome != "token_invalid"]
    assert len(certificates) == 1
    serial = x509.load_pem_x509_certificate(certificates[0].encode()).serial_number
    assert int(device_of(engine).certificate_serial, 16) == serial


class TestCreateToken:
    def test_unknown_device(self, engine: Engine, authority: Authority) -> None:
        with pytest.raises(UsageError, match="not_found"):
            token_for(engine, authority, "nobody")

    def test_revoked_device(self, engine: Engine, authority: Authority) -> None:
        revoke(engine)
        with pytest.raises(UsageError, match="conflict"):
            token_for(engine, authority)

    def test_a_name_of_the_server(self, engine: Engine, authority: Authority) -> None:
        with write(engine) as session:
            session.add(Device(id="publisher", hardware_class="arm", site="berlin", shard=3, created_at=NOW))
        with pytest.raises(UsageError, match="invalid"):
            token_for(engine, authority, "publisher")


class TestRevoke:
    def test_says_what_it_did(self, engine: Engine, authority: Authority) -> None:
        enrol(engine, authority, token_for(engine, authority))
        before = device_of(engine)
        done = revoke(engine)
        assert done == Revocation(DEVICE, "active", before.certificate_serial, before.certificate_expires)
        assert device_of(engine).state == "revoked"
        with read(engine) as session:
            assert revoked_serials(session, NOW) == [before.certificate_serial]

    def test_twice_is_once(self, engine: Engine, authority: Authority) -> None:
        enrol(engine, authority, token_for(engine, authority))
        revoke(engine)
        assert revoke(engine).previous_state == "revoked"
        assert device_of(engine).revision == 3
        with read(engine) as session:
            assert len(revoked_serials(session, NOW)) == 1

    def test_a_device_that_never_enrolled(self, engine: Engine) -> None:
        assert revoke(engine).serial == ""
        with read(engine) as session:
            assert revoked_serials(session, NOW) == []

    def test_unknown(self, engine: Engine) -> None:
        with pytest.raises(UsageError, match="not_found"), write(engine) as session:
            revoke_device(session, "nobody", NOW)

    def test_a_certificate_that_was_replaced_is_listed_until_it_ends(
        self, engine: Engine, authority: Authority
    ) -> None:
        enrol(engine, authority, token_for(engine, authority))
        old = device_of(engine).certificate_serial
        enrol(engine, authority, token_for(engine, authority))
        with read(engine) as session:
            assert revoked_serials(session, NOW) == [old]
            assert revoked_serials(session, NOW + timedelta(days=90)) == []
