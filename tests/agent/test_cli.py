"""The command line: exit codes, messages, and the whole process from start to SIGTERM."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.agent_world import AgentWorld, RunningAgent, enrolled
from tests.support.tuf_world import DEVICE, World
from wavegate_agent import cli
from wavegate_agent.config import Config, load_identity
from wavegate_shared.errors import UsageError


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("enroll", "run", "status", "Exit codes"):
        assert word in text


@pytest.mark.parametrize(
    "arguments",
    [[], ["run", "--http-port", "99999"], ["run", "--threads", "0"], ["enroll"], ["run", "--window-s", "no"]],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_status_without_an_agent_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--state", str(tmp_path), "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["error"] == "setup"
    assert "no agent answers" in told.err


def test_status_of_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = AgentWorld()
    world.release(1)
    world.release(2)
    with RunningAgent(tmp_path, world) as running:
        assert cli.main(["status", "--state", str(tmp_path)]) == 3
        assert "nothing installed" in capsys.readouterr().out
        running.install(1)
        running.host.fails[2] = "load_failed"
        running.install(2)
        assert cli.main(["status", "--state", str(tmp_path)]) == 0
        told = capsys.readouterr().out
        assert "pairs 1" in told
        assert "version 2 refused: load_failed" in told
        assert cli.main(["status", "--state", str(tmp_path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["device"] == DEVICE


def test_run_without_an_identity_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--state", str(tmp_path)]) == 1
    assert "enrol this device first" in capsys.readouterr().err


def test_a_directory_too_deep_for_its_sockets_is_refused_with_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--state", str(tmp_path / ("d" * 100))]) == 1
    assert "a unix socket takes 107: choose a shorter path" in capsys.readouterr().err


def test_enroll_with_a_bad_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["enroll", "--token", "wg1.x", "--server", "https://localhost:1", "--state", str(tmp_path)]
    assert cli.main(arguments) == 1
    assert "token_invalid" in capsys.readouterr().err


def test_a_damaged_identity_is_told(tmp_path: Path) -> None:
    enrolled(tmp_path, World())
    config = Config(state_dir=tmp_path)
    config.identity.agent.write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        load_identity(config.identity)


def test_sigterm_ends_a_real_process_cleanly(tmp_path: Path) -> None:
    """No broker is there: the process serves (nothing), answers status, and ends with 0 on SIGTERM."""
    enrolled(tmp_path, World(), broker_port=1)
    command = [sys.executable, "-m", "wavegate_agent.cli", "run", "--state", str(tmp_path), "--log-json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while cli.main(["status", "--state", str(tmp_path)]) != 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.2)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("mqtt_unreachable" in line["message"] for line in lines)
    assert not (tmp_path / "agent.sock").exists()
