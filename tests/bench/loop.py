"""From publishing a version to the last of eight devices proven, and the bytes that took.

A real server, broker and eight agent processes as in the demo, under its traffic; the first version goes to all in one wave.
`publish_to_all_proven_s` has probation (3 s, 15 live requests) and the devices' golden sets and benches in it.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from wavegate_server.demo.fleet import DEVICES, Fleet
from wavegate_server.demo.processes import Processes

_TREE = Path(__file__).resolve().parents[2] / "deploy" / "models" / "address-match"
_MODEL = "address-match"
_RATE_PER_S = 8.0
_POLICY = ("--waves", "all=100%", "--soak", "0s", "--probation", "3s", "--probation-requests", "15")
_TIMEOUT_S = 240.0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Figures: publish_to_all_proven_s, bytes_per_device_ratio (fetched / size of the version's artifacts), dropped."""
    with tempfile.TemporaryDirectory(prefix="wg-") as scratch, Processes(Path(scratch) / "logs") as processes:
        fleet = Fleet(Path(scratch), processes)
        fleet.start_server()
        fleet.bring_up(DEVICES, lambda _: None)
        fleet.start_traffic([fleet.application(one, _MODEL, _TREE / "traffic.jsonl", _RATE_PER_S) for one in DEVICES])
        fleet.wavegate("model", "import", str(_TREE / "bundle"))
        started = time.monotonic()
        fleet.wavegate("model", "publish", _MODEL, "1")
        rollout = fleet.wavegate("rollout", "create", _MODEL, "1", "--devices", "all", *_POLICY)["id"]
        seconds = _until_proven(fleet, rollout, started)
        version = fleet.api.get(f"/models/{_MODEL}/versions/1")
        size = sum(artifact["size_bytes"] for artifact in version["artifacts"])
        fetched = [sum(report["bytes_fetched"] for report in fleet.reports(device.id)) for device in DEVICES]
        dropped = sum(stats.dropped for stats in fleet.traffic().values())
    return {
        "publish_to_all_proven_s": seconds,
        "bytes_per_device_ratio": max(fetched) / size,
        "artifact_bytes": size,
        "devices": len(DEVICES),
        "dropped": dropped,
    }


def _until_proven(fleet: Fleet, rollout: str, started: float) -> float:
    while time.monotonic() - started < _TIMEOUT_S:
        fleet.check()
        if fleet.rollout(rollout)["devices"].get("proven", 0) == len(DEVICES):
            return time.monotonic() - started
        time.sleep(0.2)
    raise TimeoutError(f"not all devices proved the version within {_TIMEOUT_S:.0f} s")
