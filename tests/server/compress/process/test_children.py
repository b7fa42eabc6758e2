"""A child that crashes, hangs, floods its log or eats memory ends alone, and the reason is told."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from wavegate_server.compress.process.children import run_child
from wavegate_shared.errors import UsageError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "naughty.py"


def reason(module: Path, text: str, **limits: float) -> str:
    module.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        run_child("naughty", {}, timeout_s=limits.get("timeout_s", 30), memory_bytes=int(limits.get("memory", 1 << 30)))
    return caught.value.detail


def test_an_answer_comes_back(module: Path) -> None:
    module.write_text('import json, sys; print("noise"); print(json.dumps({"got": json.load(sys.stdin)}))')
    assert run_child("naughty", {"a": 1}) == {"got": {"a": 1}}


def test_a_crash_names_its_signal(module: Path) -> None:
    assert "SIGSEGV" in reason(module, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")


def test_a_hang_is_ended(module: Path) -> None:
    started = time.monotonic()
    assert "did not finish within 1 s" in reason(module, "import time\nwhile True: time.sleep(1)", timeout_s=1)
    assert time.monotonic() - started < 20


def test_a_memory_hog_is_ended(module: Path) -> None:
    assert "ran out of memory" in reason(module, "x = bytearray(4 << 30)")


def test_a_flood_of_log_lines_does_not_stop_it_or_fill_memory(module: Path) -> None:
    flood = "import sys\nfor _ in range(200000): sys.stderr.write('warning ' * 20 + chr(10))\n"
    module.write_text(flood + "print('{\"done\": true}')")
    assert run_child("naughty", {}) == {"done": True}
    assert reason(module, flood + "sys.exit('the end')").endswith("the end")


def test_a_told_error_is_passed_on(module: Path) -> None:
    assert reason(module, 'print(\'{"error": "x", "detail": "because"}\')') == "because"


def test_no_child_outlives_a_parent_that_was_killed(module: Path) -> None:
    told = module.with_name("pid")
    module.write_text(
        f"import os, pathlib, time\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    call = "from wavegate_server.compress.process.children import run_child; run_child('naughty', {})"
    parent = subprocess.Popen([sys.executable, "-c", call])
    deadline = time.monotonic() + 20
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        parent.poll()
    parent.kill()
    parent.wait()
    child = Path("/proc") / told.read_text()
    while (child / "cmdline").exists() and (child / "cmdline").read_bytes() and time.monotonic() < deadline:
        parent.poll()
    assert not (child / "cmdline").exists() or not (child / "cmdline").read_bytes()
