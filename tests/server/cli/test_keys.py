"""`wavegate keys ...` through the real command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_server.cli.main import run
from wavegate_server.config import Settings
from wavegate_server.services.first_start import open_trust


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAVEGATE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


class Cli:
    """Runs commands and reads their JSON."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Any:
        assert run(["keys", *arguments, "--json"]) == 0, self._capsys.readouterr().err
        return json.loads(self._capsys.readouterr().out)

    def problem(self, *arguments: str) -> Any:
        assert run(["keys", *arguments, "--json"]) == 1
        return json.loads(self._capsys.readouterr().err)


@pytest.fixture
def keys(capsys: pytest.CaptureFixture[str]) -> Cli:
    cli = Cli(capsys)
    cli("init")
    return cli


def places(status: Any) -> dict[str, str]:
    return {key["role"]: key["place"] for key in status["keys"]}


def test_init_makes_root_two_of_three_and_the_rest(keys: Cli) -> None:
    status = keys("status")
    assert set(places(status)) >= {"root-1", "root-2", "root-3", "targets", "release", "snapshot", "timestamp"}
    assert set(status["expires"]) == {"root", "targets", "snapshot", "timestamp"}
    assert open_trust(Settings()).tuf_repo.store.root().signed.roles["root"].threshold == 2


def test_init_again_changes_nothing(keys: Cli) -> None:
    before = keys("status")
    assert keys("init") == before == keys("list")


def test_status_for_people(keys: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "status"]) == 0
    shown = capsys.readouterr().out
    assert "on this machine" in shown
    assert "valid until" in shown


def test_status_before_init_names_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "status"]) == 0
    assert "wavegate keys init" in capsys.readouterr().out


def test_commands_before_init_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert Cli(capsys).problem("resign")["code"] == "setup"


def test_delegate_with_a_key_of_its_own(keys: Cli) -> None:
    shared = keys("delegate", "pairs")
    own = keys("delegate", "pairs", "--own-key")
    assert own["role"] == "release/pairs"
    assert own["keyid"] != shared["keyid"]


def test_bench(keys: Cli) -> None:
    assert keys("bench", "arm")["role"] == "bench/arm"
    assert "bench/arm" in keys("status")["expires"]


def test_move_away_and_back(keys: Cli, tmp_path: Path) -> None:
    moved = keys("move", "targets", str(tmp_path / "stick"))
    file = Path(moved["uri"].removeprefix("file:"))
    file.rename(tmp_path / "pulled.pem")
    assert places(keys("status"))["targets"] == "offline"
    assert keys.problem("delegate", "pairs")["code"] == "key_missing"
    keys("use", "targets", f"file:{tmp_path / 'pulled.pem'}")
    keys("delegate", "pairs")


def test_resign_what_is_here(keys: Cli, data_dir: Path) -> None:
    keys("delegate", "pairs")
    assert set(keys("resign")["expires"]) == {"root", "targets", "release/pairs"}
    next((data_dir / "keys").glob("targets.*.pem")).unlink()
    assert set(keys("resign")["expires"]) == {"root", "release/pairs"}
    assert set(keys("resign", "release/pairs")["expires"]) == {"release/pairs"}
    assert keys.problem("resign", "release/faces")["code"] == "not_found"


def test_rotate(keys: Cli, data_dir: Path) -> None:
    old = KeyStore(data_dir / "keys").public("timestamp").keyid
    assert keys("rotate", "timestamp")["keyid"] != old
    assert keys.problem("rotate", "nothing")["code"] == "key_missing"
