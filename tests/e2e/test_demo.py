"""The demo as users run it: a real server, broker and agents; every promise held, and each one able to fail."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.waiting import wait_until
from wavegate_server.cli.demo import conclude
from wavegate_server.demo.promises import Facts

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

WAVEGATE = str(Path(sys.executable).with_name("wavegate"))
ENV = {**os.environ, "WAVEGATE_BROKER": "embedded"}
PROMISES = [
    "v1_rolled_out",
    "second_model",
    "v2_promoted",
    "idle_proven",
    "v3_refused",
    "v4_rolled_back",
    "none_dropped",
]
INFERENCE_OF_THE_LAST = {2: "devices/gateway-berlin/agent.sock", 8: "devices/gateway-shenzhen/agent.sock"}
"""By number of devices: the socket that is there once all of them run."""


def processes_below(directory: Path) -> list[str]:
    """Command lines of living processes that name `directory`, or whose environment does."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in text and entry.name != str(os.getpid()):
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """One whole run: its JSON result, what it printed, and where it worked."""
    work = tmp_path_factory.mktemp("d")
    arguments = [WAVEGATE, "demo", "--directory", str(work / "w"), "--json", str(work / "out.json")]
    done = subprocess.run(arguments, env=ENV, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return json.loads((work / "out.json").read_text()), done.stdout, work


@pytest.mark.timeout(420)
def test_every_promise_holds_and_every_device_tells_its_story(demo: tuple[dict[str, Any], str, Path]) -> None:
    result, printed, work = demo
    assert result["ok"] is True
    assert [promise["name"] for promise in result["promises"]] == PROMISES
    assert len(result["devices"]) == 8
    assert len({device["site"] for device in result["devices"]}) == 4
    assert len({device["class"] for device in result["devices"]}) == 2
    idle, *asked = sorted(result["devices"], key=lambda device: device["id"] != "locker-shenzhen")
    assert (idle["served"], idle["versions"]) == (0, [])
    assert all(device["served"] > 50 and device["dropped"] == 0 for device in asked)
    assert sorted(len(device["versions"]) for device in asked) == [2] * 6 + [4]
    assert printed.count("fashion v1 ") >= 4  # a row for each gateway
    for row in ("size (MB)", "latency p50 (ms)", "peak memory (MB)", "CPU time per inference (ms)", "accuracy (share)"):
        assert row in printed
    assert processes_below(work) == []


def _break_v1(facts: dict[str, Any]) -> None:
    facts["devices"][0]["outcomes"].remove("1:proven")


def _break_second(facts: dict[str, Any]) -> None:
    for device in facts["devices"]:
        device["second"] = None


def _break_idle(facts: dict[str, Any]) -> None:
    for device in facts["devices"]:
        device["proved_itself"] = []


def _break_v2(facts: dict[str, Any]) -> None:
    facts["rollouts"]["2"] = "rolled_back"


def _break_v3(facts: dict[str, Any]) -> None:
    for device in facts["devices"]:
        device["offered"].append(3)


def _break_v4(facts: dict[str, Any]) -> None:
    for device in facts["devices"]:
        device["versions"] = [version for version in device["versions"] if version != 4]


def _break_dropped(facts: dict[str, Any]) -> None:
    facts["devices"][7]["dropped"] = 1


@pytest.mark.timeout(420)
@pytest.mark.parametrize(
    ("spoil", "name"),
    list(
        zip(
            [_break_v1, _break_second, _break_v2, _break_idle, _break_v3, _break_v4, _break_dropped],
            PROMISES,
            strict=True,
        )
    ),
    ids=PROMISES,
)
def test_a_broken_promise_changes_the_exit_code(
    demo: tuple[dict[str, Any], str, Path], tmp_path: Path, spoil: Callable[[dict[str, Any]], None], name: str
) -> None:
    """The facts of the real run with one thing changed, judged by what the command ends with."""
    facts = demo[0]["facts"]
    assert judged(facts, tmp_path) == (0, True, set())
    changed = json.loads(json.dumps(facts))
    spoil(changed)
    assert judged(changed, tmp_path) == (1, False, {name})


def judged(facts: dict[str, Any], directory: Path) -> tuple[int, bool, set[str]]:
    """Exit code, `ok` and the broken promises by which the command concludes these facts."""
    code = conclude(msgspec.convert(facts, Facts), 0.0, directory / "out.json")
    return code, *outcome(directory)


def outcome(directory: Path) -> tuple[bool, set[str]]:
    out = json.loads((directory / "out.json").read_text())
    return out["ok"], {promise["name"] for promise in out["promises"] if not promise["held"]}


@pytest.mark.timeout(420)
def test_the_command_ends_with_that_exit_code(demo: tuple[dict[str, Any], str, Path], tmp_path: Path) -> None:
    """`wavegate demo --facts` of the real run's file, and of one with a request dropped."""
    for spoil, expected in ((lambda _facts: None, (0, True, set())), (_break_dropped, (1, False, {"none_dropped"}))):
        result = json.loads(json.dumps(demo[0]))
        spoil(result["facts"])
        (tmp_path / "facts.json").write_text(json.dumps(result))
        arguments = [WAVEGATE, "demo", "--facts", str(tmp_path / "facts.json"), "--json", str(tmp_path / "out.json")]
        done = subprocess.run(arguments, env=ENV, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, *outcome(tmp_path)) == expected


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory below which sockets still have names of at most 107 bytes, also in a parallel run."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def sigint_reaches_children() -> Iterator[None]:
    """A process that was started in the background ignores SIGINT, and its children inherit that: not here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def end_early(directory: Path, end: signal.Signals, *, when: str, devices: int) -> None:
    """Start a demo, end it when a file appears, and see that nothing of it lives on."""
    arguments = [WAVEGATE, "demo", "--directory", str(directory / "w"), "--devices", str(devices)]
    with subprocess.Popen(arguments, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: (directory / "w" / when).exists() or child.poll() is not None, when, timeout_s=120)
        assert child.poll() is None, "the demo ended by itself"
        assert len(processes_below(directory)) > 1
        child.send_signal(end)
        child.wait(30)
    wait_until(lambda: processes_below(directory) == [], "the end of every process")


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("sigint_reaches_children")
def test_interrupted_it_leaves_no_process_behind(short_path: Path) -> None:
    end_early(short_path, signal.SIGINT, when=INFERENCE_OF_THE_LAST[2], devices=2)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("sigint_reaches_children")
@pytest.mark.parametrize(
    ("end", "when"),
    [(signal.SIGINT, INFERENCE_OF_THE_LAST[8]), (signal.SIGKILL, "server/serve.json")],
    ids=["ctrl-c", "kill -9"],
)
def test_all_eight_devices_interrupted_leave_no_process_behind(
    short_path: Path, end: signal.Signals, when: str
) -> None:
    end_early(short_path, end, when=when, devices=8)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_two_devices_keep_every_promise(short_path: Path) -> None:
    arguments = [WAVEGATE, "demo", "--directory", str(short_path / "w"), "--json", str(short_path / "out.json")]
    done = subprocess.run(
        [*arguments, "--devices", "2"], env=ENV, capture_output=True, text=True, check=False, timeout=400
    )
    assert (done.returncode, *outcome(short_path)) == (0, True, set()), done.stdout[-4000:] + done.stderr[-2000:]
    devices = json.loads((short_path / "out.json").read_text())["devices"]
    assert [device["id"] for device in devices] == ["locker-berlin", "gateway-berlin"]
