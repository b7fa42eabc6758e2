"""Certificates renew, all processes real: over MQTT while the fleet runs, over HTTPS for a device from a drawer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import write_pair_bundle
from tests.support.waiting import wait_until
from wavegate_agent.adapters.network.identity_renewal import IdentityRenewal
from wavegate_server.adapters import clock
from wavegate_server.demo.fleet import DemoDevice, Fleet
from wavegate_server.demo.processes import Processes

pytestmark = pytest.mark.e2e

DEVICE = DemoDevice("gate-1", "gateway", "berlin", threads=1, memory_mb=256)
QUARTER_HOUR = "0.01"
"""Days; certificates begin an hour in the past, so this one is due at once."""
SECONDS = "0.00005"
AT_ONCE = "--waves all=100% --soak 0s --probation 0s --probation-requests 0 --idle-wave promote --few-canaries wide"


@contextmanager
def server(directory: Path) -> Iterator[Fleet]:
    with Processes(directory / "logs") as processes:
        made = Fleet(directory, processes)
        made.start_server()
        yield made
        made.api.close()


def identity(directory: Path) -> IdentityRenewal:
    return IdentityRenewal(directory / "devices" / DEVICE.id / "identity")


def kinds(fleet: Fleet) -> list[str]:
    return [event["kind"] for event in fleet.api.pages(f"/devices/{DEVICE.id}/events")]


def seen(fleet: Fleet) -> Any:
    return fleet.api.get(f"/devices/{DEVICE.id}")["last_seen"]


def test_a_running_device_renews_over_mqtt_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVEGATE_DEVICE_CERTIFICATE_DAYS", QUARTER_HOUR)
    with server(tmp_path) as fleet:
        fleet.enrol(DEVICE)
        old = identity(tmp_path).term().serial
        fleet.start_agent(DEVICE)
        wait_until(lambda: "renewed" in kinds(fleet), "the use of the new certificate")
        assert identity(tmp_path).term().serial != old
        fleet.wavegate("model", "import", str(write_pair_bundle(tmp_path / "bundle", floor=0.9)))
        fleet.wavegate("model", "publish", "pairs", "1")
        rollout = fleet.wavegate("rollout", "create", "pairs", "1", *AT_ONCE.split())["id"]
        wait_until(
            lambda: fleet.rollout(rollout)["state"] == "completed", "a rollout, its report signed by the new key"
        )
        fleet.check()


def test_a_device_from_a_drawer_renews_over_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("WAVEGATE_DEVICE_CERTIFICATE_DAYS", SECONDS)
        with server(tmp_path) as fleet:
            fleet.enrol(DEVICE)
    old = identity(tmp_path).term()
    wait_until(lambda: clock.now() > old.ends, "the end of its certificate")
    agent = tmp_path / "devices" / DEVICE.id / "identity" / "agent.json"
    with server(tmp_path) as fleet:  # on other ports, those that this machine had free
        port = json.loads((tmp_path / "server" / "serve.json").read_text())["broker_port"]
        known = json.loads(agent.read_text())
        agent.write_text(json.dumps({**known, "server_url": fleet.url, "broker_port": port}))
        fleet.start_agent(DEVICE)
        wait_until(lambda: seen(fleet) and "renewed" in kinds(fleet), "its first hello", timeout_s=60)
        assert identity(tmp_path).term().ends > old.ends
