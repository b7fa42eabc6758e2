"""What the agent costs a device: memory idle with TLS and TUF, import time, and a worker above its model's own bytes.

A real server, broker and one agent that has fetched, verified and proved a version over mutual TLS and then idles. Memory in
MiB. `agent_rss_mb` counts shared libraries in full; `agent_pss_mb` shares them with the worker. The import time is the best of
several fresh processes, because anything else running only adds to it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from wavegate_server.demo.fleet import DemoDevice, Fleet
from wavegate_server.demo.processes import Processes

_TREE = Path(__file__).resolve().parents[2] / "deploy" / "models" / "address-match"
_MODEL = "address-match"
_RATE_PER_S = 8.0
_DEVICE = DemoDevice("bench-1", "bench", "here", 1, 1024)
_POLICY = ("--waves", "all=100%", "--soak", "0s", "--probation", "1s", "--probation-requests", "10")
_IMPORT = (
    "import time; w, c = time.perf_counter(), time.process_time(); import wavegate_agent.control.agent; "
    "print(time.perf_counter() - w, time.process_time() - c)"
)
_TIMEOUT_S = 120.0
_IDLE_S = 20.0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Figures: agent_rss_mb, agent_import_s, worker_over_model_mb; and what they consist of."""
    imports = [_import_s() for _ in range(3 if options.quick else 9)]
    figures: dict[str, Any] = {
        "agent_import_s": min(wall for wall, _ in imports),
        "agent_import_cpu_s": min(cpu for _, cpu in imports),
    }
    with tempfile.TemporaryDirectory(prefix="wg-") as scratch, Processes(Path(scratch) / "logs") as processes:
        fleet = Fleet(Path(scratch), processes)
        fleet.start_server()
        fleet.wavegate("model", "import", str(_TREE / "bundle"))
        fleet.wavegate("model", "publish", _MODEL, "1")
        fleet.bring_up([_DEVICE], lambda _: None)
        agent = _agent_pid(Path(scratch) / "devices" / _DEVICE.id)
        figures["agent_fresh_rss_mb"] = _memory(agent)["Rss"]
        fleet.start_traffic([fleet.application(_DEVICE, _MODEL, _TREE / "traffic.jsonl", _RATE_PER_S)])
        rollout = fleet.wavegate("rollout", "create", _MODEL, "1", "--devices", "all", *_POLICY)["id"]
        _until(lambda: fleet.rollout(rollout)["devices"].get("proven", 0) == 1, "the version was not proven")
        fleet.stop_traffic()
        time.sleep(2.0 if options.quick else _IDLE_S)
        figures |= _idle(agent, fleet)
    return figures


def _idle(agent: int, fleet: Fleet) -> dict[str, float]:
    workers = _children(agent)
    if len(workers) != 1:
        raise RuntimeError(f"one worker expected, found {workers}")
    version = fleet.api.get(f"/models/{_MODEL}/versions/1")
    model = sum(a["size_bytes"] for a in version["artifacts"] if a["role"] == "model") / 2**20
    own, worker = _memory(agent), _memory(workers[0])
    return {
        "agent_rss_mb": own["Rss"],
        "agent_pss_mb": own["Pss"],
        "agent_anon_mb": own["Anonymous"],
        "worker_over_model_mb": worker["Pss"] - model,
        "worker_rss_over_model_mb": worker["Rss"] - model,
        "worker_anon_mb": worker["Anonymous"],
        "model_mb": model,
    }


def _import_s() -> tuple[float, float]:
    """Wall and CPU seconds of importing the control process in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
    wall, cpu = done.stdout.split()
    return float(wall), float(cpu)


def _memory(pid: int) -> dict[str, float]:
    """Rss, Pss and Anonymous of a process in MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss", "Anonymous"):
            found[name] = round(int(rest.split()[0]) / 1024, 1)
    return found


def _agent_pid(state: Path) -> int:
    """The process that runs with this state directory."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(state).encode() in arguments and b"run" in arguments:
                return int(entry.name)
    raise RuntimeError(f"no agent runs with {state}")


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text(encoding="utf-8").split()]


def _until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {_TIMEOUT_S:.0f} s")
        time.sleep(0.2)
