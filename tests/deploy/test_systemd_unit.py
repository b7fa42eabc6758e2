"""The agent's systemd unit: hardened, and starting the command that exists."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
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


def test_applications_of_the_group_find_the_socket_where_the_docs_say() -> None:
    lines = UNIT.read_text().splitlines()
    start = next(line for line in lines if line.startswith("ExecStart="))
    options = cli.build_parser().parse_args(start.split()[2:])
    directory = next(line for line in lines if line.startswith("RuntimeDirectory=")).partition("=")[2]
    assert options.unix_socket == Path("/run") / directory / "infer.sock"
    assert {"Group=wavegate", "RuntimeDirectoryMode=0750", "StateDirectoryMode=0700"} <= set(lines)
    page = (UNIT.parents[2] / "docs" / "operate.md").read_text()
    called = set(re.findall(r"curl .*--unix-socket (\S+)", page)) | set(
        re.findall(r"wavegate-agent run .*--unix-socket (\S+)", page)
    )
    assert called == {str(options.unix_socket)}


BECOME = """
import json, os, pathlib, socket, sys
from wavegate_agent.adapters.workers.listening import ListeningSockets
path, user, groups = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.setgroups(groups)
os.setgid(groups[0] if groups else user)
os.setuid(user)
os.umask(0o077)
"""
CONNECT = BECOME + "s = socket.socket(socket.AF_UNIX); s.connect(path); print(s.recv(5).decode())"
LISTEN = (
    BECOME
    + """
sockets = ListeningSockets(pathlib.Path(path), None)
print("listening", flush=True)
listener = socket.socket(fileno=os.dup(sockets.descriptors[0]))
listener.setblocking(True)
while True:
    listener.accept()[0].sendall(b"hello")
"""
)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as three users")
def test_only_the_group_reaches_the_socket() -> None:
    """The agent's user, an application in the group, a stranger: numbers of no account."""
    agent, group, application, stranger = 64001, 64002, 64003, 64004
    with tempfile.TemporaryDirectory(prefix="wg-") as scratch:
        Path(scratch).chmod(0o755)
        runtime = Path(scratch) / "wavegate"
        runtime.mkdir(mode=0o750)
        os.chown(runtime, agent, group)
        runtime.chmod(0o750)
        path = str(runtime / "infer.sock")

        def command(program: str, user: int, groups: list[int]) -> list[str]:
            return [sys.executable, "-c", program, path, str(user), json.dumps(groups)]

        with subprocess.Popen(command(LISTEN, agent, [group]), stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            try:
                assert listener.stdout.readline() == "listening\n"
                welcome, refused = (
                    subprocess.run(command(CONNECT, user, groups), capture_output=True, text=True, check=False)
                    for user, groups in ((application, [application, group]), (stranger, []))
                )
            finally:
                listener.kill()
        assert welcome.stdout == "hello\n"
        assert "PermissionError" in refused.stderr


def test_it_watches_and_restarts() -> None:
    lines = UNIT.read_text().splitlines()
    for wanted in ("Type=notify", "Restart=always", "WatchdogSec=180", "NoNewPrivileges=yes", "CapabilityBoundingSet="):
        assert wanted in lines
