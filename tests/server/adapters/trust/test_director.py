from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.trust import NOW, make_repository
from tests.support.tuf_world import slot_of
from wavegate_server.adapters.trust.director import Director
from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_shared.assignment import ASSIGNMENT_TYPE, TIME_TYPE, Assignment, TimeDocument
from wavegate_shared.dsse import open_signed
from wavegate_shared.errors import TrustError, UsageError

NONCE = "0123456789abcdef"
ASSIGNMENT = Assignment(
    device="kiosk-1",
    seq=3,
    issued=NOW,
    expires=NOW + timedelta(days=7),
    slots={"main": slot_of(b"manifest")},
    meta_min={"root": 1, "targets": 2, "release/pairs": 3},
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return make_repository(tmp_path_factory.mktemp("trust") / "server").keys


def test_a_sealed_assignment_opens_with_the_directors_key_only(keys: KeyStore) -> None:
    sealed = Director.from_keys(keys).seal(ASSIGNMENT)
    assert open_signed(sealed, Assignment, ASSIGNMENT_TYPE, [keys.public("director")]) == ASSIGNMENT
    with pytest.raises(TrustError, match="signature_invalid"):
        open_signed(sealed, Assignment, ASSIGNMENT_TYPE, [keys.public("time")])


def test_an_assignment_stays_about_a_kilobyte(keys: KeyStore) -> None:
    assert len(Director.from_keys(keys).seal(ASSIGNMENT)) < 1100


def test_the_time_answer_repeats_the_nonce_under_the_time_key(keys: KeyStore) -> None:
    answer = Director.from_keys(keys).answer_time(NONCE, NOW)
    assert open_signed(answer, TimeDocument, TIME_TYPE, [keys.public("time")]) == TimeDocument(nonce=NONCE, time=NOW)
    with pytest.raises(TrustError, match="signature_invalid"):
        open_signed(answer, TimeDocument, TIME_TYPE, [keys.public("director")])


def test_without_keys_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="key_missing"):
        Director.from_keys(KeyStore(tmp_path))
