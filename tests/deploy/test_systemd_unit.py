"""The agent's systemd unit: hardened, and starting the command that exists."""

import shutil
import subprocess
from pathlib import Path

import pytest

from wavegate_agent import cli

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "wavegate-agent.service"


def test_exposure_is_at_most_2() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_it_starts_a_command_with_options_that_exist() -> None:
    start = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    words = start.split()
    assert words[1] == "wavegate-agent"
    options = cli.build_parser().parse_args(words[2:])
    assert options.state == Path("/var/lib/wavegate-agent")


def test_it_watches_and_restarts() -> None:
    lines = UNIT.read_text().splitlines()
    for wanted in ("Type=notify", "Restart=always", "WatchdogSec=180", "NoNewPrivileges=yes", "CapabilityBoundingSet="):
        assert wanted in lines
