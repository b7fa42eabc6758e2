"""`wavegate broker config` through the real command line."""

import json
from pathlib import Path

import pytest

from wavegate_server.adapters import clock
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.cli.main import run
from wavegate_server.config import Settings


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAVEGATE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    settings = Settings()
    Authority(settings.ca_dir).init(clock.now(), ["wavegate.example"])
    return settings


def test_it_writes_both_files_with_the_authoritys_certificates(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.broker_dir.mkdir(parents=True)
    (settings.broker_dir / "revoked.json").write_text('{"dev-9": "77"}')
    out = tmp_path / "conf"
    assert run(["broker", "config", "--out", str(out), "--port", "9999", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["denied"] == ["dev-9"]
    lines = Path(answer["configuration"]).read_text().splitlines()
    assert "listener 9999 0.0.0.0" in lines
    assert f"cafile {settings.ca_dir / 'ca.pem'}" in lines
    assert f"crlfile {settings.ca_dir / 'crl.pem'}" in lines
    assert "user dev-9" in Path(answer["access_list"]).read_text().splitlines()


def test_the_revocation_list_can_be_left_out(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["broker", "config", "--out", str(tmp_path), "--no-crl", "--host", "10.0.0.1"]) == 0
    assert "mosquitto -c" in capsys.readouterr().out
    text = (tmp_path / "mosquitto.conf").read_text()
    assert "crlfile" not in text
    assert "listener 8883 10.0.0.1" in text


def test_without_an_authority_it_says_what_to_do(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["broker", "config", "--out", str(tmp_path)]) == 1
    assert "wavegate serve" in capsys.readouterr().err


def test_an_impossible_port_is_a_usage_error(settings: Settings, tmp_path: Path) -> None:
    assert run(["broker", "config", "--out", str(tmp_path), "--port", "70000"]) == 2
