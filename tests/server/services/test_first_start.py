import stat
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from tests.support.trust import NOW
from wavegate_server.adapters.database.connection import open_engine, sqlite_url, write
from wavegate_server.adapters.database.tables import RevokedCertificate
from wavegate_server.config import Settings
from wavegate_server.services.first_start import initialise, maintain, open_trust
from wavegate_shared.errors import UsageError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", public_name="wavegate.example", host="0.0.0.0")


def content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_first_start_makes_everything_and_the_second_changes_nothing(settings: Settings) -> None:
    initialise(settings, NOW)
    before = content(settings.data_dir)
    trust = open_trust(settings)
    assert trust.tuf_repo.versions()["root"] == 1
    assert trust.authority.service("publisher").key.is_file()
    initialise(settings, NOW + timedelta(days=1))
    assert content(settings.data_dir) == before


def test_the_data_directory_is_the_owners_alone(settings: Settings) -> None:
    initialise(settings, NOW)
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700


def test_a_first_start_that_was_cut_short_is_completed(settings: Settings) -> None:
    initialise(settings, NOW)
    (settings.tuf_dir / "metadata" / "timestamp.json").unlink()
    (settings.ca_dir / "broker.key").unlink()
    (settings.ca_dir / "crl.pem").unlink()
    initialise(settings, NOW)
    trust = open_trust(settings)
    assert trust.authority.service("broker").key.is_file()
    assert trust.authority.crl_path.is_file()


def test_offline_keys_do_not_stop_a_start(settings: Settings, tmp_path: Path) -> None:
    initialise(settings, NOW)
    keys = open_trust(settings).keystore
    for role in ("root-1", "root-2", "root-3", "targets", "release"):
        keys.move(role, tmp_path / "safe").unlink()
    initialise(settings, NOW)
    open_trust(settings)


def test_before_the_first_start_it_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(UsageError, match="wavegate keys init"):
        open_trust(settings)


def test_maintain_signs_what_is_due_and_names_the_revoked(settings: Settings, tmp_path: Path) -> None:
    initialise(settings, NOW)
    trust, engine = open_trust(settings), open_engine(sqlite_url(tmp_path / "test.db"))
    SQLModel.metadata.create_all(engine)
    with write(engine) as session:
        ends = NOW + timedelta(days=60)
        session.add(RevokedCertificate(serial="abc", device_id="kiosk-1", revoked_at=NOW, expires_at=ends))
    assert maintain(trust, engine, NOW + timedelta(hours=1)) == ["crl"]  # a certificate ended since: at once
    assert trust.authority.listed_serials() == ["abc"]
    assert maintain(trust, engine, NOW + timedelta(hours=2)) == []
    assert maintain(trust, engine, NOW + timedelta(hours=7)) == ["timestamp"]
    assert maintain(trust, engine, NOW + timedelta(hours=27)) == ["timestamp", "crl"]
    engine.dispose()
