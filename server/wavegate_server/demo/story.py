"""The demo's acts: v1 to all, a second model, v2 compressed and promoted, v3 refused, v4 caught by the gate, the reckoning."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.demo.bad_versions import refused_bundle, treacherous_bundle
from wavegate_server.demo.fleet import DemoDevice, Fleet, Say
from wavegate_server.demo.promises import MODEL, SECOND, DeviceFacts, Facts, SecondFacts
from wavegate_server.demo.traffic import DeviceStats
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Comparison

__all__ = ["Act", "Story", "collect"]

BLOCK_S, BASELINE_BLOCKS = 1.0, 20
SOAK_S, GOOD_SOAK_S = 60.0, 5.0
"""How long a bad version may take to be found out (an alarm ends the wave at once; most come within 15 s), and how long a good
one is watched: five blocks, one more than the gate needs.
"""
BUDGET = "size=-70%,drop=2pt,speed=1.1x"
_ENDED = ("completed", "rolled_back", "cancelled")
_ROLLOUT_TIMEOUT_S = 180.0
_POLL_S = 0.4
_SETTINGS = (
    ("--block", f"{BLOCK_S:g}s"),
    ("--baseline", str(BASELINE_BLOCKS)),
    ("--soak", f"{SOAK_S:g}s"),
    ("--few-canaries", "wide"),
    ("--margin", "accuracy=5pt"),
    ("--margin", "p99=20pt"),
    ("--margin", "errors=5pt"),
    ("--probation", "2s"),
    ("--probation-requests", "8"),
    ("--idle-after", "4s"),
    ("--deadline", "60s"),
)
"""What the demo shortens and widens: a fleet uses 15-minute blocks, a day of baseline, an hour of soak, 0.5 pt margins."""
_POLICY = {"wide_factor": 1.0, "probation": {"max_p99_ratio": 10.0}}
"""The margins above are wide already; and on one busy machine a p99 of a few seconds swings too much for the device alone."""


@dataclass
class Act:
    """The story's rollouts, once they were created: of the first model by version."""

    rollouts: dict[int, str] = field(default_factory=dict)


class Story:
    """Runs the acts on a fleet that is up.

    Args:
        fleet: server and devices.
        bundle: the original's bundle.
        second: the second model's bundle.
        directory: where v2, v3 and v4 are written.
        say: gets each line of the live log.
        policy: JSON policy file for what no option says.
    """

    def __init__(self, fleet: Fleet, *, bundle: Path, second: Path, directory: Path, say: Say) -> None:
        self._fleet = fleet
        self._bundle = bundle
        self._second = second
        self._directory = directory
        self._say = say
        self.act = Act()
        self.comparison: list[Comparison] = []

    def v1_to_all(self) -> None:
        """The original, to every device at once: nothing ran before, so there is nothing to compare with."""
        self._say(f"v1: the original, from {self._bundle.name}")
        self._take(self._bundle, 1)
        self._roll_out(1, "--waves", "all=100%", "--soak", "0s")

    def second_model(self) -> None:
        """The gateways get another model beside the first one."""
        self._say(f"{SECOND}: a second model for the gateways, beside {MODEL}")
        self._take(self._second, 1, model=SECOND)
        options = ("--waves", "all=100%", "--soak", "0s")
        self._roll_out(1, *options, model=SECOND, devices="class=gateway")

    def v2_promoted(self) -> None:
        """v1 compressed on the spot within a budget, then through the gate: one canary, then the rest."""
        shown = " ".join(" ".join(pair) for pair in _SETTINGS)
        self._say(f"rollouts here run with {shown}")
        self._say(f"v2: compressing v1 within the budget {BUDGET}")
        out = self._directory / "v2"
        answer = self._fleet.wavegate(
            "compress", str(self._bundle), "--budget", BUDGET, "--out", str(out),
            "--cache", str(self._directory / "cache"), accept=(0, 3),
        )  # fmt: skip
        if answer["chosen"] is None:
            raise UsageError("budget_not_met", "no candidate met the demo's budget: " + _reasons(answer))
        self.comparison = msgspec.convert(answer["comparison"], list[Comparison])
        self._take(out, 2)
        self._roll_out(2, "--waves", "canary=1,rest", "--soak", f"{GOOD_SOAK_S:g}s")

    def v3_refused(self) -> None:
        """A version whose golden set fails on the device; the server was told not to look."""
        self._say("v3: a bad version, registered unchecked; its golden set fails on the device")
        with open_bundle(self._directory / "v2") as good:
            refused_bundle(good, self._directory / "v3")
        self._take(self._directory / "v3", 3, "--unchecked")
        self._roll_out(3, "--waves", "canary=1,rest")

    def v4_rolled_back(self) -> None:
        """A version that only live traffic can find out: the gate must take it back."""
        kind = yaml.safe_load((self._bundle.parent / "traffic.yaml").read_text(encoding="utf-8"))["kind_token"]
        self._say(f"v4: a bad version that passes every check, but is wrong and slow on addresses with '{kind}'")
        with open_bundle(self._directory / "v2") as good:
            vocab = good.path("vocab.txt").read_text(encoding="utf-8").splitlines()
            treacherous_bundle(good, self._directory / "v4", token_id=vocab.index(kind))
        self._take(self._directory / "v4", 4)
        self._roll_out(4, "--waves", "canary=1,rest")

    def _take(self, bundle: Path, number: int, *options: str, model: str = MODEL) -> None:
        taken = self._fleet.wavegate("model", "import", str(bundle), *options)
        version = int(taken["version"]["number"])
        if version != number:
            raise UsageError("conflict", f"{bundle.name} became version {version}, the demo wants {number}")
        self._fleet.wavegate("model", "publish", model, str(number))
        self._say(f"{_short(model, number)} imported, signed, published")

    def _roll_out(self, number: int, *options: str, model: str = MODEL, devices: str = "all") -> None:
        settings = [text for pair in _SETTINGS if pair[0] not in options for text in pair]
        settings += ["--policy", str(self._policy_file())]
        created = self._fleet.wavegate(
            "rollout", "create", model, str(number), "--devices", devices, *settings, *options
        )
        if model == MODEL:
            self.act.rollouts[number] = created["id"]
        self._follow(created["id"], _short(model, number))

    def _policy_file(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "policy.json"
        path.write_text(json.dumps(_POLICY), encoding="utf-8")
        return path

    def _follow(self, rollout: str, name: str) -> None:
        """Say what changes until the rollout ends."""
        deadline, said = time.monotonic() + _ROLLOUT_TIMEOUT_S, set[str]()
        while time.monotonic() < deadline:
            self._fleet.check()
            view = self._fleet.rollout(rollout)
            for line in _lines(view, name):
                if line not in said:
                    said.add(line)
                    self._say(line)
            if view["state"] in _ENDED:
                return
            time.sleep(_POLL_S)
        raise UsageError(
            "setup", f"the rollout of {name} did not end within {_ROLLOUT_TIMEOUT_S:.0f} s: {view['reason']}"
        )


def _short(model: str, number: int) -> str:
    return f"v{number}" if model == MODEL else f"{model} v{number}"


def _lines(view: dict[str, Any], name: str) -> list[str]:
    lines = []
    for wave in view["wave_list"]:
        if wave["state"] != "pending":
            lines.append(f"{name} wave {wave['name'] or wave['number'] + 1}: {wave['state']} ({wave['size']} devices)")
    lines += [f"{name} gate: {gate['sentence']}" for gate in reversed(view["gates"]) if gate["final"]]
    if view["state"] in _ENDED:
        lines.append(f"{name} {view['state']}: {view['reason']}")
    return lines


def _reasons(answer: dict[str, Any]) -> str:
    return "; ".join(f"{candidate['recipe']}: {candidate['reason']}" for candidate in answer["candidates"])


def collect(fleet: Fleet, act: Act, devices: Sequence[DemoDevice]) -> Facts:
    """Everything the promises are judged from: counts of the traffic generator, rollouts and reports of the API."""
    views = {number: fleet.rollout(name) for number, name in act.rollouts.items()}
    traffic = fleet.traffic()
    facts = [_device_facts(fleet, device, views, traffic) for device in devices]
    return Facts(
        devices=facts,
        rollouts={str(number): str(view["state"]) for number, view in views.items()},
        rollback_s=_rollback_s(views.get(4)),
        reason_v3=views[3]["reason"] if 3 in views else "",
        reason_v4=views[4]["reason"] if 4 in views else "",
    )


def _device_facts(
    fleet: Fleet, device: DemoDevice, views: dict[int, dict[str, Any]], traffic: dict[str, DeviceStats]
) -> DeviceFacts:
    stats = traffic.get(f"{device.id}/{MODEL}", DeviceStats())
    every = fleet.reports(device.id)
    reports = [report for report in every if report["model"] == MODEL]
    newest = 0
    rollback_bytes = 0
    for report in reports:
        rollback_bytes += report["bytes_fetched"] if report["version"] < newest else 0
        newest = max(newest, report["version"])
    return DeviceFacts(
        id=device.id,
        hardware_class=device.hardware_class,
        site=device.site,
        versions=[int(version) for version in stats.history],
        served=stats.served,
        dropped=stats.dropped,
        bytes_fetched=sum(report["bytes_fetched"] for report in every),
        outcomes=[_outcome(report) for report in reports],
        rollback_bytes=rollback_bytes,
        offered=[number for number, view in views.items() if device.id in _offered(view)],
        idle=device.idle,
        proved_itself=[
            report["version"]
            for report in reports
            if report["outcome"] == "proven" and report["self_requests"] and not report["served"]
        ],
        second=_second_facts(every, traffic.get(f"{device.id}/{SECOND}")),
    )


def _second_facts(reports: list[dict[str, Any]], stats: DeviceStats | None) -> SecondFacts | None:
    if stats is None:
        return None
    return SecondFacts(
        versions=[int(version) for version in stats.history],
        served=stats.served,
        dropped=stats.dropped,
        outcomes=[_outcome(report) for report in reports if report["model"] == SECOND],
    )


def _outcome(report: dict[str, Any]) -> str:
    code = f":{report['code']}" if report["code"] else ""
    return f"{report['version']}:{report['outcome']}{code}"


def _offered(view: dict[str, Any]) -> set[str]:
    members = [member for wave in view["wave_list"] for member in wave["devices"]]
    return {member["device"] for member in members if member["published_at"]}


def _rollback_s(view: dict[str, Any] | None) -> float | None:
    """From the swap to the bad version until the device was proven back on the good one."""
    members = [m for wave in (view or {}).get("wave_list", []) for m in wave["devices"] if m["swapped_at"]]
    spans = [_seconds(m["swapped_at"], m["finished_at"]) for m in members if m["finished_at"]]
    return max(spans, default=None)


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
