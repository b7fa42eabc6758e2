import stat
from pathlib import Path

import pytest

from wavegate_server.adapters.trust.keystore import QUICK_START_ROLES, KeyPlace, KeyStore
from wavegate_shared.errors import UsageError


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    store = KeyStore(tmp_path / "keys")
    store.init()
    return store


def place_of(keys: KeyStore, role: str) -> KeyPlace:
    return {status.role: status.place for status in keys.status()}[role]


def test_init_makes_every_role_once(keys: KeyStore) -> None:
    before = keys.status()
    assert tuple(status.role for status in before) == QUICK_START_ROLES
    assert len({status.keyid for status in before}) == len(QUICK_START_ROLES)
    keys.init()
    assert keys.status() == before


def test_private_files_are_the_owners_alone(keys: KeyStore) -> None:
    files = [*keys.key_files(), keys.directory / "keys.json"]
    assert len(files) == len(QUICK_START_ROLES) + 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700


def test_a_signature_verifies_with_the_public_key(keys: KeyStore) -> None:
    signature = keys.signer("director").sign(b"data")
    keys.public("director").verify_signature(signature, b"data")


def test_a_model_without_a_key_of_its_own_uses_the_shared_one(keys: KeyStore) -> None:
    assert keys.public("release/pairs").keyid == keys.public("release").keyid
    own = keys.create("release/pairs")
    assert keys.public("release/pairs").keyid == own.keyid != keys.public("release").keyid
    assert keys.signer("release/pairs").public_key.keyid == own.keyid


def test_a_bench_role_never_uses_the_release_key(keys: KeyStore) -> None:
    with pytest.raises(UsageError, match="no key is registered for bench/arm"):
        keys.signer("bench/arm")


def test_a_key_that_is_elsewhere_is_told_with_what_to_do(keys: KeyStore, tmp_path: Path) -> None:
    stick = keys.move("targets", tmp_path / "stick")
    assert keys.signer("targets").public_key.keyid == keys.public("targets").keyid  # the stick is in
    stick.rename(tmp_path / "pulled.pem")
    assert place_of(keys, "targets") is KeyPlace.OFFLINE
    with pytest.raises(UsageError, match="wavegate keys use targets file:") as caught:
        keys.signer("targets")
    assert caught.value.code == "key_missing"
    assert not list(keys.directory.glob("targets*"))


def test_a_moved_key_may_be_named_at_its_new_place(keys: KeyStore, tmp_path: Path) -> None:
    stick = keys.move("targets", tmp_path / "stick")
    stick.rename(tmp_path / "elsewhere.pem")
    keys.use("targets", f"file:{tmp_path / 'elsewhere.pem'}")
    assert place_of(keys, "targets") is KeyPlace.ONLINE


def test_another_key_is_not_taken_for_it(keys: KeyStore) -> None:
    other = next(keys.directory.glob("snapshot.*.pem"))
    with pytest.raises(UsageError, match="another key"):
        keys.use("targets", f"file:{other}")
    keys.signer("targets")


def test_move_refuses_to_overwrite(keys: KeyStore, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    name = next(keys.directory.glob("targets.*.pem")).name
    (tmp_path / "stick" / name).write_text("something")
    with pytest.raises(UsageError, match="exists"):
        keys.move("targets", tmp_path / "stick")
    keys.signer("targets")


@pytest.mark.parametrize("uri", ["hsm:2?label=x", "awskms:arn:aws:kms:x", "nonsense:1"])
def test_an_external_signer_that_cannot_be_used(keys: KeyStore, uri: str) -> None:
    keys.use("targets", uri)
    assert place_of(keys, "targets") is KeyPlace.EXTERNAL
    with pytest.raises(UsageError) as caught:
        keys.signer("targets")
    assert caught.value.code == "key_missing"


def test_a_pending_key_signs_only_after_it_was_promoted(keys: KeyStore) -> None:
    old = keys.public("time")
    coming = keys.pending("time")
    assert keys.pending("time").keyid == coming.keyid
    assert keys.public("time").keyid == old.keyid
    assert keys.signer("time.next").public_key.keyid == coming.keyid
    keys.promote("time")
    assert keys.signer("time").public_key.keyid == coming.keyid
    assert not list(keys.directory.glob(f"time.{old.keyid[:12]}*")), "the old private key is destroyed"
    with pytest.raises(UsageError, match="conflict"):
        keys.promote("time")


def test_a_damaged_index(keys: KeyStore) -> None:
    (keys.directory / "keys.json").write_text('{"keys": {"time": {}}}')
    with pytest.raises(UsageError, match="setup"):
        keys.signer("time")


def test_a_damaged_key_file(keys: KeyStore) -> None:
    next(keys.directory.glob("time.*.pem")).write_text("junk")
    with pytest.raises(UsageError, match="key_missing"):
        keys.signer("time")
