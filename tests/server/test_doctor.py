"""Each finding is provoked once."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.trust import NOW
from wavegate_server import doctor
from wavegate_server.config import Settings
from wavegate_server.doctor import Finding, Level, examine
from wavegate_server.services.first_start import initialise, open_trust
from wavegate_server.web import vendor

OFFLINE = ("root-1", "root-2", "root-3", "targets", "release")


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after its first start; each test changes a copy."""
    directory = tmp_path_factory.mktemp("doctor") / "data"
    initialise(Settings(data_dir=directory), NOW)
    return directory


@pytest.fixture
def settings(first_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(vendor, "missing", list)
    shutil.copytree(first_start, tmp_path / "data")
    return Settings(data_dir=tmp_path / "data", broker="embedded")


def bad(settings: Settings, days: float = 0) -> dict[str, Finding]:
    found = examine(settings, NOW + timedelta(days=days))
    return {finding.check: finding for finding in found if finding.level is not Level.OK}


def test_the_quick_start_warns_of_nothing_but_its_keys(settings: Settings) -> None:
    findings = bad(settings)
    assert set(findings) == {"keys"}
    assert findings["keys"].level is Level.WARNING
    assert "root-1, root-2, root-3, targets, release" in findings["keys"].sentence
    assert "wavegate keys move" in findings["keys"].advice


def test_with_the_keys_moved_away_all_is_well(settings: Settings, tmp_path: Path) -> None:
    keys = open_trust(settings).keystore
    for role in OFFLINE:
        keys.move(role, tmp_path / "safe").unlink()
    assert bad(settings) == {}
    (online,) = [finding for finding in examine(settings, NOW) if finding.check == "keys"]
    assert "snapshot, timestamp, director, time" in online.sentence


def test_a_key_the_server_needs_is_gone(settings: Settings) -> None:
    next(settings.keys_dir.glob("timestamp.*.pem")).unlink()
    sentences = [finding.sentence for finding in examine(settings, NOW) if finding.level is Level.ERROR]
    assert sentences == ["the timestamp key is not here; the server needs it"]


def test_before_the_first_start(tmp_path: Path) -> None:
    findings = bad(Settings(data_dir=tmp_path / "none", broker="embedded"))
    assert all(findings[check].level is Level.ERROR for check in ("data", "keys", "metadata", "certificates"))


@pytest.mark.parametrize(
    ("break_it", "check", "level"),
    [
        (lambda s: s.data_dir.chmod(0o755), "data", Level.WARNING),
        (lambda s: next(s.keys_dir.glob("time.*.pem")).chmod(0o644), "secrets", Level.ERROR),
        (lambda s: (s.ca_dir / "ca.key").chmod(0o640), "secrets", Level.ERROR),
        (lambda s: (s.keys_dir / "keys.json").write_text("junk"), "keys", Level.ERROR),
        (lambda s: (s.tuf_dir / "metadata" / "timestamp.json").write_text("junk"), "metadata", Level.ERROR),
        (lambda s: (s.ca_dir / "ca.key").unlink(), "certificates", Level.ERROR),
    ],
)
def test_what_is_broken(settings: Settings, break_it: Callable[[Settings], object], check: str, level: Level) -> None:
    break_it(settings)
    assert bad(settings)[check].level is level


@pytest.mark.parametrize(
    ("days", "check", "sentence", "level"),
    [
        (1.5, "metadata", "timestamp expires in 12 hours", Level.WARNING),
        (2, "metadata", "timestamp has expired", Level.ERROR),
        (24, "certificates", "crl expires in 6 days", Level.WARNING),
        (31, "certificates", "crl has expired", Level.ERROR),
        (380, "certificates", "server expires in 17 days", Level.WARNING),
    ],
)
def test_what_ends(settings: Settings, days: float, check: str, sentence: str, level: Level) -> None:
    found = [f for f in examine(settings, NOW + timedelta(days=days)) if f.check == check and sentence in f.sentence]
    assert [finding.level for finding in found] == [level]
    assert found[0].advice


def test_mosquitto_is_asked_for_and_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_mosquitto", lambda: None)
    assert bad(settings.model_copy(update={"broker": "mosquitto"}))["broker"].level is Level.ERROR
    assert "broker" not in bad(settings.model_copy(update={"broker": "auto"}))
    assert "broker" not in bad(settings.model_copy(update={"broker": "external"}))


def test_the_dashboards_libraries_are_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "missing", lambda: ["htmx.min.js"])
    assert "htmx.min.js" in bad(settings)["dashboard"].sentence
