"""Renewal on a real database with real certificates: asked, repeated, used, refused; and the proof of a device that comes late."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine
from sqlmodel import SQLModel, select

from tests.support.trust import NOW
from wavegate_server.adapters.database.connection import open_engine, read, sqlite_url, write
from wavegate_server.adapters.database.tables import Device, DeviceEvent
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.adapters.trust.enrolment import create_token, redeem, revoke_device, revoked_serials
from wavegate_server.adapters.trust.renewal import check_proof, new_challenge, note_used, renew
from wavegate_shared.errors import TrustError
from wavegate_shared.wire import RENEWAL_PROOF

DEVICE = "kiosk-1"
GRACE = timedelta(days=365)
LATER = NOW + timedelta(days=62)


class Pair:
    """A key of a device."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def csr(self, name: str = DEVICE) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def proof(self, challenge: str, csr: str) -> bytes:
        said = RENEWAL_PROOF + challenge.encode() + b"\n" + csr.encode()
        return self.key.sign(said, ec.ECDSA(hashes.SHA256()))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.init(NOW, [])
    return made


@pytest.fixture
def first() -> Pair:
    return Pair()


@pytest.fixture
def engine(tmp_path: Path, authority: Authority, first: Pair) -> Iterator[Engine]:
    opened = open_engine(sqlite_url(tmp_path / "test.db"))
    SQLModel.metadata.create_all(opened)
    with write(opened) as session:
        session.add(Device(id=DEVICE, hardware_class="arm", site="berlin", shard=3, created_at=NOW))
    with write(opened) as session:
        redeem(session, authority, create_token(session, authority, DEVICE, now=NOW), first.csr(), NOW)
    yield opened
    opened.dispose()


def device_of(engine: Engine) -> Device:
    with read(engine) as session:
        return session.get_one(Device, DEVICE)


def asked(engine: Engine, authority: Authority, pair: Pair, now: datetime = LATER, name: str = DEVICE) -> str:
    with write(engine) as session:
        return renew(session, authority, DEVICE, pair.csr(name), now)


def used(engine: Engine, serial: str, now: datetime = LATER) -> bool:
    with write(engine) as session:
        return note_used(session, session.get_one(Device, DEVICE), serial, now)


def serial_of(pem: str) -> str:
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:x}"


def revoked(engine: Engine) -> list[str]:
    with read(engine) as session:
        return revoked_serials(session, LATER)


def test_both_certificates_hold_until_the_new_one_was_used(engine: Engine, authority: Authority, first: Pair) -> None:
    old, second = device_of(engine), Pair()
    pem = asked(engine, authority, second)
    between = device_of(engine)
    assert (between.public_key, between.certificate_serial) == (first.public, old.certificate_serial)
    assert revoked(engine) == []
    assert not used(engine, old.certificate_serial)

    assert used(engine, serial_of(pem))
    now = device_of(engine)
    assert (now.public_key, now.previous_public_key) == (second.public, first.public)
    assert now.certificate_serial == serial_of(pem)
    assert now.certificate_expires == LATER + timedelta(days=90)
    assert (now.next_serial, now.next_certificate) == ("", "")
    assert revoked(engine) == [old.certificate_serial]
    assert not used(engine, serial_of(pem))  # a second hello
    with read(engine) as session:
        assert [row.kind for row in session.exec(select(DeviceEvent))] == ["enrolled", "renewed"]


def test_the_same_request_gets_the_same_certificate(engine: Engine, authority: Authority) -> None:
    second = Pair()
    assert asked(engine, authority, second) == asked(engine, authority, second, LATER + timedelta(hours=1))


def test_a_key_that_was_given_up_is_revoked(engine: Engine, authority: Authority) -> None:
    lost, second = asked(engine, authority, Pair()), Pair()
    pem = asked(engine, authority, second)
    assert revoked(engine) == [serial_of(lost)]
    assert not used(engine, serial_of(lost))
    assert used(engine, serial_of(pem))


@pytest.mark.parametrize("which", ["present", "previous"])
def test_a_replayed_renewal_is_refused(engine: Engine, authority: Authority, first: Pair, which: str) -> None:
    second = Pair()
    used(engine, serial_of(asked(engine, authority, second)))
    before = device_of(engine)
    with pytest.raises(TrustError, match="a renewal brings a new one") as refused:
        asked(engine, authority, first if which == "previous" else second)
    assert refused.value.code == "renewal_refused"
    assert device_of(engine).model_dump() == before.model_dump()


def test_a_foreign_or_broken_request_is_refused(engine: Engine, authority: Authority) -> None:
    with pytest.raises(TrustError, match="not for kiosk-1") as foreign:
        asked(engine, authority, Pair(), name="kiosk-2")
    with write(engine) as session, pytest.raises(TrustError) as broken:
        renew(session, authority, DEVICE, "nonsense", LATER)
    assert {foreign.value.code, broken.value.code} == {"certificate_invalid"}
    assert device_of(engine).next_serial == ""


def test_a_revoked_device_renews_nothing_and_its_next_certificate_ends_too(
    engine: Engine, authority: Authority
) -> None:
    old, pem = device_of(engine).certificate_serial, asked(engine, authority, Pair())
    with write(engine) as session:
        revoke_device(session, DEVICE, LATER)
    assert revoked(engine) == sorted([old, serial_of(pem)])
    with pytest.raises(TrustError, match="no active device"):
        asked(engine, authority, Pair())


def test_enrolling_anew_ends_a_renewal_under_way(engine: Engine, authority: Authority) -> None:
    old, pem = device_of(engine).certificate_serial, asked(engine, authority, Pair())
    with write(engine) as session:
        token = create_token(session, authority, DEVICE, now=LATER)
        redeem(session, authority, token, Pair().csr(), LATER)
    assert revoked(engine) == sorted([old, serial_of(pem)])
    assert (device_of(engine).next_serial, device_of(engine).previous_public_key) == ("", "")


# --- over HTTPS, after the certificate's end ---------------------------------------------------------------------------


def prove(
    engine: Engine,
    authority: Authority,
    signer: Pair,
    *,
    days: float,
    device: str = DEVICE,
    asked_ago: timedelta = timedelta(0),
    challenge: str = "",
) -> None:
    now, csr = NOW + timedelta(days=days), Pair().csr()
    challenge = challenge or new_challenge(authority, DEVICE, now - asked_ago)
    with write(engine) as session:
        check_proof(
            session,
            authority,
            device,
            csr_pem=csr,
            challenge=challenge,
            signature=signer.proof(challenge, csr),
            grace=GRACE,
            now=now,
        )


@pytest.mark.parametrize("days", [1, 91, 130, 454])
def test_the_old_key_proves_the_device_until_a_year_after_its_end(
    engine: Engine, authority: Authority, first: Pair, days: float
) -> None:
    prove(engine, authority, first, days=days)


def test_the_key_of_a_renewal_that_was_never_used_proves_it_too(engine: Engine, authority: Authority) -> None:
    second = Pair()
    asked(engine, authority, second)
    prove(engine, authority, second, days=130)


def test_what_proves_nothing_is_refused(engine: Engine, authority: Authority, first: Pair) -> None:
    wrong: dict[str, Callable[[], None]] = {
        "not signed by the key": lambda: prove(engine, authority, Pair(), days=91),
        "ended more than 365 days ago": lambda: prove(engine, authority, first, days=456),
        "too old": lambda: prove(engine, authority, first, days=91, asked_ago=timedelta(minutes=6)),
        "not this server's": lambda: prove(engine, authority, first, days=91, challenge="1767225600." + "0" * 64),
        "no active device": lambda: prove(engine, authority, first, days=91, device="kiosk-9"),
    }
    for words, act in wrong.items():
        with pytest.raises(TrustError, match=words) as refused:
            act()
        assert refused.value.code == "renewal_refused"
    for garbage in ("", ".", "x.y", "9" * 50):
        with pytest.raises(TrustError, match="not this server's"):
            prove(engine, authority, first, days=91, challenge=garbage or " ")
