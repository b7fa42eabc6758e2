"""The demo as users run it: a real server, broker and eight agents; every promise held, and each one able to fail."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

WAVEGATE = str(Path(sys.executable).with_name("wavegate"))
ENV = {**os.environ, "WAVEGATE_BROKER": "embedded"}
PROMISES = ["v1_rolled_out", "v2_promoted", "v3_refused", "v4_rolled_back", "none_dropped"]


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


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


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
    assert all(device["served"] > 50 and device["dropped"] == 0 for device in result["devices"])
    assert sorted(len(device["versions"]) for device in result["devices"]) == [2] * 7 + [4]
    for row in ("size (MB)", "latency p50 (ms)", "peak memory (MB)", "CPU time per inference (ms)", "accuracy (share)"):
        assert row in printed
    assert processes_below(work) == []


def _break_v1(facts: dict[str, Any]) -> None:
    facts["devices"][0]["outcomes"].remove("1:proven")


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
    list(zip([_break_v1, _break_v2, _break_v3, _break_v4, _break_dropped], PROMISES, strict=True)),
    ids=PROMISES,
)
def test_a_broken_promise_changes_the_exit_code(
    demo: tuple[dict[str, Any], str, Path], tmp_path: Path, spoil: Callable[[dict[str, Any]], None], name: str
) -> None:
    """The facts of the real run with one thing changed: the same command, the same judgement."""
    result, _, _ = demo
    (tmp_path / "facts.json").write_text(json.dumps(result))
    assert judge(tmp_path) == (0, True, set())
    changed = json.loads(json.dumps(result))
    spoil(changed["facts"])
    (tmp_path / "facts.json").write_text(json.dumps(changed))
    assert judge(tmp_path) == (1, False, {name})


def judge(directory: Path) -> tuple[int, bool, set[str]]:
    """Exit code, `ok` and the broken promises of `wavegate demo --facts`."""
    arguments = [WAVEGATE, "demo", "--facts", str(directory / "facts.json"), "--json", str(directory / "out.json")]
    done = subprocess.run(arguments, env=ENV, capture_output=True, text=True, check=False, timeout=60)
    out = json.loads((directory / "out.json").read_text())
    return done.returncode, out["ok"], {promise["name"] for promise in out["promises"] if not promise["held"]}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("end", "when"),
    [(signal.SIGINT, "devices/gateway-shenzhen/agent.sock"), (signal.SIGKILL, "server/serve.json")],
    ids=["ctrl-c", "kill -9"],
)
def test_interrupted_it_leaves_no_process_behind(tmp_path: Path, end: signal.Signals, when: str) -> None:
    arguments = [WAVEGATE, "demo", "--directory", str(tmp_path / "w")]
    with subprocess.Popen(arguments, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        assert wait_for((tmp_path / "w" / when).exists, 120), f"{when} did not come up"
        assert len(processes_below(tmp_path)) > 1
        child.send_signal(end)
        child.wait(30)
    assert wait_for(lambda: processes_below(tmp_path) == [], 20), processes_below(tmp_path)
