"""A child program that cannot watch a pipe ends with its parent all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from wavegate_server.adapters import with_parent

LAUNCHER = str(Path(with_parent.__file__))


def test_it_becomes_the_program() -> None:
    command = [sys.executable, LAUNCHER, str(os.getpid()), "/bin/echo", "here"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"here\n"


def test_it_runs_nothing_when_the_parent_is_already_gone() -> None:
    done = subprocess.run([sys.executable, LAUNCHER, "1", "/bin/echo", "here"], capture_output=True, check=True)
    assert done.stdout == b""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_it_ends_when_its_parent_is_killed() -> None:
    script = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {LAUNCHER!r}, str(os.getpid()), '/bin/sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: "sleep" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0])
        parent.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"
