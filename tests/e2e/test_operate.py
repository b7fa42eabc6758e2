"""docs/operate.md, line by line: the commands an operator copies are run in order against a real server and a real device.

Only what cannot be on a test machine is exchanged: installing, absolute directories, host names, hours for seconds, and a
smaller bundle for the one that the page copies.
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.bundles import write_pair_bundle
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate.md"
FAST = "--soak 2s --block 1s --baseline 8 --few-canaries wide --probation 1s --probation-requests 5 --margin p99=90pt"
BACKGROUND = ("wavegate serve", "wavegate-agent run")


def lines_of_the_page() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("pip install")]


class Walk:
    """An operator with a terminal: runs lines, knows the token and the rollout that earlier lines printed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.token = self.url = self.rollout = ""
        self.children: list[subprocess.Popen[str]] = []
        beside = str(Path(sys.executable).parent)
        self.env = {
            **os.environ,
            "WAVEGATE_CACHE": str(directory / "cache"),
            "PATH": f"{beside}:{os.environ['PATH']}",
            "WAVEGATE_DATA_DIR": str(directory / "server"),
            "WAVEGATE_BROKER": "embedded",
            "WAVEGATE_TICK_S": "0.2",
        }

    def run(self, line: str) -> str:
        line = self._adapted(line)
        if line.startswith(BACKGROUND):
            with (self.directory / f"log-{len(self.children)}").open("w") as log:
                child = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {line}"],
                    cwd=self.directory,
                    env=self.env,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            self.children.append(child)
            self._wait_for(self.directory / ("server/serve.json" if "serve" in line else "agent/agent.sock"))
            return ""
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        self._remember(line, done.stdout + done.stderr)
        return done.stdout

    def _adapted(self, line: str) -> str:
        if line.startswith("wavegate serve"):
            line = "wavegate serve --port 0 --broker-port 0"
        if line.startswith("wavegate-agent run"):
            line += " --window-s 1"
        exchanged = {
            "/var/lib/wavegate-agent": str(self.directory / "agent"),
            "/run/wavegate": str(self.directory / "run"),
            "/var/lib/wavegate": str(self.directory / "server"),
            "deploy/models/address-match/bundle": str(self.directory / "small-bundle"),
            "--soak 0s": "--soak 0s --block 1s --probation 1s --probation-requests 3 --idle-after 1s",
            "https://models.example.org:8443": self.url,
            "--token wg1...": f"--token {self.token}",
            "r-1f2e3d4c": self.rollout,
            "--soak 1h": FAST,
        }
        for old, new in exchanged.items():
            line = line.replace(old, new)
        return line

    def _remember(self, line: str, printed: str) -> None:
        if found := re.search(r"wg1\.\S+", printed):
            self.token = found.group()
        if "rollout create" in line and (found := re.search(r"r-[0-9a-f]{8}", printed)):
            self.rollout = found.group()

    def _wait_for(self, path: Path) -> None:
        wait_until(path.exists, path.name)
        if path.name == "serve.json":
            self.url = json.loads(path.read_text())["url"]
            self.env["WAVEGATE_SERVER"] = self.url

    def end(self) -> None:
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            child.wait(20)


@contextmanager
def application(path: Path) -> Iterator[None]:
    """An application that asks the device all the time and sends the answers back."""
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.wait(0.02):
            number += 1
            with suppress(OSError, http.client.HTTPException), socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(path))
                connection = http.client.HTTPConnection("localhost")
                connection.sock = raw
                words = ["oak", "oak"] if number % 2 else ["oak", "elm"]
                text = {"name": "text", "datatype": "BYTES", "shape": [1, 2], "data": words}
                for verb, body in (("infer", {"inputs": [text]}), ("feedback", {"label": number % 2})):
                    connection.request(
                        "POST", f"/v2/models/address-match/{verb}", json.dumps({"id": f"a{number}", **body})
                    )
                    connection.getresponse().read()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.timeout(480)
def test_the_page_works_as_written(tmp_path: Path) -> None:
    write_pair_bundle(tmp_path / "small-bundle", model="address-match")
    walk = Walk(tmp_path)
    printed: dict[str, str] = {}
    try:
        with application(tmp_path / "run" / "infer.sock"):
            for line in lines_of_the_page():
                if line.startswith("curl") and shutil.which("curl") is None:
                    print("skipped, no curl on this machine:", line)
                    continue
                printed[line.split(" --")[0]] = walk.run(line)
    finally:
        walk.end()
    if shutil.which("curl"):
        assert '"model_version":"1"' in "".join(printed["curl"].split())
    assert "locker-0017" in printed["wavegate device show locker-0017"]
    assert "rolled back" in printed["wavegate device why locker-0017"].lower()


@pytest.mark.timeout(240)
def test_two_devices_without_any_traffic_take_a_first_and_a_second_version(tmp_path: Path) -> None:
    """Nobody asks the model anything: the devices prove both versions by their own requests, and the rollouts say so."""
    write_pair_bundle(tmp_path / "small-bundle", model="address-match")
    write_pair_bundle(tmp_path / "better-bundle", model="address-match", stored="float32")
    page = lines_of_the_page()
    page = page[: next(number for number, line in enumerate(page) if line.startswith("curl"))]
    running = next(number for number, line in enumerate(page) if line.startswith("wavegate-agent run")) + 1
    server = "https://models.example.org:8443"
    lines = [
        *page[:running],
        "wavegate device token locker-0018 --class locker-small --site berlin",
        f"wavegate-agent enroll --token wg1... --server {server} --state /var/lib/wavegate-agent-2",
        "wavegate-agent run --state /var/lib/wavegate-agent-2 --unix-socket /run/wavegate/infer-2.sock",
        *page[running:],
        "wavegate rollout why r-1f2e3d4c",
        "wavegate model import better-bundle",
        "wavegate model publish address-match 2",
        "wavegate rollout create address-match 2 --waves all=100% --soak 1s --block 1s --baseline 8 --probation 1s "
        "--probation-requests 3 --idle-after 1s --idle-wave promote --watch",
        "wavegate rollout why r-1f2e3d4c",
        "wavegate rollout list --json",
        "wavegate device show locker-0018 --json",
    ]
    walk = Walk(tmp_path)
    try:
        printed = [walk.run(line) for line in lines]
    finally:
        walk.end()
    why = "\n".join(printed)
    assert "first version on 2 devices, 2 without live traffic, all proven by their own checks: promoted" in why
    assert "no live traffic on 2 devices, passed on golden set, bench and guards: promoted" in why
    assert {rollout["state"] for rollout in json.loads(printed[-2])["items"]} == {"completed"}
    assert '"version": 2' in printed[-1]
