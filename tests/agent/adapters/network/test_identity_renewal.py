"""A new key and certificate take the place of the old ones; cut at each step, the pair on disk is whole after the next start."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.agent_identity import AUTHORITY, TestAuthority, enrolled
from tests.support.tuf_world import DEVICE, World
from wavegate_agent.adapters.network import identity_renewal
from wavegate_agent.adapters.network.certificates import belong_together, new_key
from wavegate_agent.adapters.network.identity_renewal import IdentityRenewal
from wavegate_shared.errors import TrustError

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = 4
"""Changes on disk from the request to the new pair: next key, next certificate, two renames."""


class PowerCutError(Exception):
    """The power went out."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    enrolled(tmp_path, World(now=BEGINS))
    return tmp_path / "identity"


def certificate_for(csr: str, serial: int) -> str:
    return AUTHORITY.answer(csr, BEGINS, BEGINS + timedelta(days=90), serial)


def renew(identity: IdentityRenewal, serial: int) -> None:
    identity.take(certificate_for(identity.request(DEVICE), serial), DEVICE)


def whole(identity: IdentityRenewal) -> str:
    """The serial number of a pair that belongs together."""
    assert belong_together(identity.key.read_bytes(), identity.certificate.read_bytes())
    return identity.term().serial


def test_a_device_goes_over_to_a_new_pair(directory: Path) -> None:
    identity = IdentityRenewal(directory)
    before = identity.key.read_bytes()
    renew(identity, 0xAB)
    assert whole(identity) == "ab"
    assert identity.key.read_bytes() != before
    assert identity.key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in directory.iterdir()) == [
        "agent.json",
        "ca.pem",
        "device.key",
        "device.pem",
        "root.json",
    ]


def test_an_unanswered_request_is_repeated_for_the_same_key(directory: Path) -> None:
    first, again = IdentityRenewal(directory), IdentityRenewal(directory)
    first.request(DEVICE)
    key = first.next_key.read_bytes()
    again.settle()
    again.request(DEVICE)
    assert again.next_key.read_bytes() == key
    assert whole(again) == "2"


@pytest.mark.parametrize("after", [False, True], ids=["before the step", "after the step"])
@pytest.mark.parametrize("cut", range(STEPS))
def test_cut_at_each_step(directory: Path, monkeypatch: pytest.MonkeyPatch, cut: int, after: bool) -> None:
    count = iter(range(100))

    def cutting(act: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            here = next(count) == cut
            if here and not after:
                raise PowerCutError
            act(*arguments)
            if here:
                raise PowerCutError

        return run

    with monkeypatch.context() as patched:
        for name in ("write_durably", "replace"):
            patched.setattr(identity_renewal, name, cutting(getattr(identity_renewal, name)))
        with pytest.raises(PowerCutError):
            renew(IdentityRenewal(directory), 0xAB)

    started = IdentityRenewal(directory)
    started.settle()
    started.settle()
    whole_at_once = cut > 1 or (cut == 1 and after)
    assert whole(started) == ("ab" if whole_at_once else "2")
    renew(started, 0xCD)  # and the next renewal works
    assert whole(started) == "cd"


@pytest.mark.parametrize("kind", ["foreign key", "foreign authority", "another name", "no certificate"])
def test_an_answer_that_does_not_fit_changes_nothing(directory: Path, kind: str) -> None:
    identity = IdentityRenewal(directory)
    csr = identity.request(DEVICE)
    answers: dict[str, Callable[[], str]] = {
        "foreign key": lambda: identity.certificate.read_text(),
        "foreign authority": lambda: TestAuthority().answer(csr, BEGINS, BEGINS + timedelta(days=1), 9),
        "another name": lambda: certificate_for(csr, 9),
        "no certificate": lambda: "nonsense",
    }
    device = "another" if kind == "another name" else DEVICE
    with pytest.raises(TrustError) as refused:
        identity.take(answers[kind](), device)
    assert refused.value.code == "certificate_invalid"
    assert whole(identity) == "2"
    identity.take(certificate_for(csr, 0xEF), DEVICE)
    assert whole(identity) == "ef"


def test_an_answer_to_nothing_is_refused(directory: Path) -> None:
    identity = IdentityRenewal(directory)
    with pytest.raises(TrustError):
        identity.take(identity.certificate.read_text(), DEVICE)


def test_a_certificate_that_fits_no_key_is_forgotten(directory: Path) -> None:
    identity = IdentityRenewal(directory)
    csr = identity.request(DEVICE)
    identity.next_certificate.write_text(certificate_for(csr, 9))
    identity.next_key.write_bytes(new_key())
    identity.settle()
    assert not identity.next_certificate.exists()
    assert whole(identity) == "2"
