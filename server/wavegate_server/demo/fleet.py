"""The demo's world: a server, eight enrolled devices, the traffic. Everything through the commands and the API users have."""

import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from wavegate_server.client import Client
from wavegate_server.demo.processes import Processes, command
from wavegate_server.demo.traffic import Application, DeviceStats, TrafficConfig, read_stats
from wavegate_shared.errors import UsageError

__all__ = ["DEVICES", "DemoDevice", "Fleet", "Say"]

Say = Callable[[str], None]
_START_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class DemoDevice:
    """One device. `threads` and `memory_mb` are limits imposed on its processes; nobody asks one that is `idle`."""

    id: str
    hardware_class: str
    site: str
    threads: int
    memory_mb: int
    idle: bool = False


def _devices() -> tuple[DemoDevice, ...]:
    sites = ("berlin", "hamburg", "lyon", "shenzhen")
    small = [DemoDevice(f"locker-{site}", "locker-small", site, 1, 512, idle=site == sites[-1]) for site in sites]
    large = [DemoDevice(f"gateway-{site}", "gateway", site, 2, 1024) for site in sites]
    return tuple(device for pair in zip(small, large, strict=True) for device in pair)


DEVICES = _devices()
"""Four sites, two hardware classes; the last locker has no customers."""


class Fleet:
    """Starts and talks to the demo's processes; `processes` ends them.

    Args:
        directory: everything the demo writes lies below it.
        processes: who ends what is started here.
    """

    def __init__(self, directory: Path, processes: Processes) -> None:
        self._directory = directory
        self._processes = processes
        self._data = directory / "server"
        self._stats_file = directory / "traffic.json"
        self._env = {"WAVEGATE_DATA_DIR": str(self._data)}
        self.url = self.login_url = ""
        self._api: Client | None = None

    def start_server(self) -> str:
        """Start `wavegate serve`; gives its URL once it answers."""
        env = {**self._env, "WAVEGATE_PORT": "0", "WAVEGATE_BROKER_PORT": "0", "WAVEGATE_TICK_S": "0.25"}
        ready = self._data / "serve.json"
        ready.unlink(missing_ok=True)
        self._processes.start("server", [command("wavegate"), "serve"], env)
        self._wait(ready.is_file, "the server did not come up")
        address = json.loads(ready.read_text())
        self.url, self.login_url = address["url"], address["login_url"]
        self._env["WAVEGATE_SERVER"] = self.url
        self._api = Client(self._http())
        return self.url

    def _http(self) -> httpx.Client:
        token = (self._data / "admin.token").read_text().strip()
        trusted = ssl.create_default_context(cafile=self._data / "ca" / "ca.pem")
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=trusted, trust_env=False, timeout=30.0)

    def enrol(self, device: DemoDevice) -> None:
        """Register a device, and let its agent redeem the one-time token."""
        place = {"id": device.id, "class": device.hardware_class, "site": device.site}
        self.redeem(device, self.api.post("/devices", place)["token"]["token"])

    def redeem(self, device: DemoDevice, token: str) -> None:
        """Let a device's agent spend an enrolment token."""
        self._call([command("wavegate-agent"), "enroll", "--token", token, "--server", self.url, *self._state(device)])

    def start_agent(self, device: DemoDevice) -> None:
        """Start `wavegate-agent run` with the device's limits."""
        limits = ("--threads", str(device.threads), "--memory-mb", str(device.memory_mb))
        arguments = [command("wavegate-agent"), "run", *self._state(device), "--window-s", "1", *limits]
        self._processes.start(device.id, arguments)

    def bring_up(self, devices: Sequence[DemoDevice], say: Say) -> None:
        """Enrol and start all devices, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            enrolled = [(device, pool.submit(self.enrol, device)) for device in devices]
            for device, done in enrolled:
                done.result()
                say(f"{device.id} enrolled ({device.hardware_class}, {device.site})")
        for device in devices:
            self.start_agent(device)
        ids = {device.id for device in devices}
        self._wait(lambda: ids <= self._seen(), "not all devices said hello")

    def application(self, device: DemoDevice, model: str, samples: Path, rate_per_s: float) -> Application:
        """An application on a device that asks one model."""
        socket = self._device_dir(device) / "infer.sock"
        return Application(
            device=device.id, socket=str(socket), model=model, samples=str(samples), rate_per_s=rate_per_s
        )

    def start_traffic(self, applications: Sequence[Application]) -> None:
        """Start the applications; each begins to ask when its device has its model."""
        config = TrafficConfig(applications=list(applications), stats_file=str(self._stats_file))
        path = self._directory / "traffic-config.json"
        path.write_bytes(msgspec.json.encode(config))
        self._processes.start("traffic", [command("python"), "-m", "wavegate_server.demo.traffic", str(path)])

    def stop_traffic(self) -> None:
        """End the traffic after the requests in flight."""
        self._processes.stop("traffic")

    def traffic(self) -> dict[str, DeviceStats]:
        """The traffic generator's counts by device/model."""
        return read_stats(self._stats_file)

    def wavegate(self, *arguments: str, accept: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run one `wavegate` command with `--json`; gives what it printed."""
        return self._call([command("wavegate"), *arguments, "--json"], accept)

    def rollout(self, name: str) -> dict[str, Any]:
        """A rollout as `wavegate rollout show` tells it, without starting a process for each look."""
        return self.api.get(f"/rollouts/{name}")

    def reports(self, device: str) -> list[dict[str, Any]]:
        """A device's signed reports, oldest first."""
        newest_first: list[dict[str, Any]] = self.api.get(f"/devices/{device}/reports")["items"]
        return newest_first[::-1]

    @property
    def api(self) -> Client:
        """The API's client, once the server is up."""
        if self._api is None:
            raise UsageError("setup", "the server was not started")
        return self._api

    def check(self) -> None:
        """Raise UsageError `setup` when a process of the demo ended by itself."""
        self._processes.check()

    def _seen(self) -> set[str]:
        return {device["id"] for device in self.api.pages("/devices") if device["last_seen"]}

    def _state(self, device: DemoDevice) -> tuple[str, str]:
        return "--state", str(self._device_dir(device))

    def _device_dir(self, device: DemoDevice) -> Path:
        return self._directory / "devices" / device.id

    def _call(self, arguments: Sequence[str], accept: Sequence[int] = (0,)) -> dict[str, Any]:
        env = {**os.environ, **self._env}
        done = subprocess.run(
            arguments, env=env, capture_output=True, text=True, timeout=_CALL_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        if done.returncode not in accept:
            shown = " ".join(arguments[:4])
            raise UsageError(
                "setup", f"{Path(arguments[0]).name} {shown} ended with {done.returncode}: {done.stderr.strip()}"
            )
        try:
            answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        except json.JSONDecodeError:
            return {}
        return answer

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float = _START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._processes.check()
            if time.monotonic() > deadline:
                raise UsageError(
                    "setup", f"{what} within {timeout_s:.0f} s; logs: {self._processes.log_path('server').parent}"
                )
            time.sleep(0.2)
