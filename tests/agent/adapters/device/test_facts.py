"""Facts from /proc and /sys: plausible here, None where there is no source."""

import os
from pathlib import Path

import pytest

from wavegate_agent.adapters.device import facts


def test_memory_and_processor() -> None:
    told = facts.hello_facts(Path("/"))
    total, available = told["memory_total_mb"], told["memory_available_mb"]
    assert isinstance(total, int)
    assert isinstance(available, int)
    assert 0 < available <= total
    assert told["cpu_count"] == os.cpu_count()
    assert told["cgroup"] in ("v2 delegated", "v2", "v1", "none")


def test_own_memory_is_what_the_kernel_says() -> None:
    told = facts.agent_rss_mb()
    assert told is not None
    assert told == pytest.approx(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20, rel=0.2)


def test_the_clock_of_the_fastest_core(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "processor : 0\ncpu MHz\t\t: 2195.5\nprocessor : 1\ncpu MHz\t\t: 2600.25\n"
    monkeypatch.setattr(facts, "_read", lambda path: lines if path == "/proc/cpuinfo" else "")
    assert facts.frequency_mhz() == pytest.approx(2600.2, abs=0.1)
    monkeypatch.setattr(facts, "_read", lambda _path: "")
    assert facts.frequency_mhz() is None


def test_a_fact_without_a_source_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_read", lambda _path: "")
    assert facts.agent_rss_mb() is None
    assert facts.memory_available_mb() is None
    assert facts.device_facts("kiosk-1", "arm").memory_mb == 0


def test_the_runtime_is_looked_up_without_importing_it() -> None:
    known = facts.device_facts("kiosk-1", "arm", bench=True)
    assert known.bench
    assert known.runtime.startswith("1.")
    assert known.opset >= 21
    assert "CPUExecutionProvider" in known.providers


@pytest.mark.parametrize(("version", "opset"), [("1.16.3", 19), ("1.18.0", 21), ("1.31.1", 23), ("2.0", 23), ("", 0)])
def test_opset_of_a_runtime(version: str, opset: int) -> None:
    assert facts._opset(version) == opset
