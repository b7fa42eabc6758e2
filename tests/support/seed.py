"""A realistic fleet in a real database, written through the tables: for page tests, browser tests and screenshots.

24 devices in four sites and two classes serve address-match. Its history: v1 everywhere, v2 (int8) promoted, v3 refused by the
golden set, v4 rolled back by the gate, v5 in its second wave right now. Everything is drawn from one seed.
"""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session

from tests.support.seed_compress import seed_compress_jobs
from tests.support.seed_gate import bad_decision, good_decision, open_decision, refused_decision
from tests.support.seed_models import MODEL, SIZES, seed_models
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import (
    Device,
    DeviceAssignment,
    DeviceEvent,
    DeviceReport,
    DeviceRollup,
    DeviceSlot,
    FleetRollup,
    GateDecision,
    Revision,
    Rollout,
    RolloutDevice,
    RolloutWave,
    TelemetryWindow,
)
from wavegate_server.core.gate.policy import Policy, dump_policy
from wavegate_server.core.sentences import Sentence, sentence_from
from wavegate_shared.histogram import Histogram

__all__ = ["MODEL", "SITES", "device_ids", "seed_fleet"]

SITES = ("hangzhou-west", "suzhou-park", "rotterdam", "denver")
CLASSES = ("pi4", "n100")
_SHORT = {"hangzhou-west": "hz", "suzhou-park": "sz", "rotterdam": "rtm", "denver": "den"}
_BASE_MS = {"pi4": {1: 41.0, 2: 17.5, 4: 24.0, 5: 15.8}, "n100": {1: 12.4, 2: 6.1, 4: 8.8, 5: 5.6}}
_ACCURACY = {1: 0.982, 2: 0.979, 4: 0.93, 5: 0.981}
_BLOCKS = {60: 1, 3600: 60, 86400: 1440}


@dataclass
class _Seed:
    session: Session
    now: datetime
    minutes: int
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    shapes: dict[tuple[str, int, int], Histogram] = field(default_factory=dict)
    fleet: dict[tuple[Any, ...], tuple[list[int], list[float], Histogram]] = field(default_factory=dict)


def device_ids() -> list[str]:
    """The ids, in order."""
    return sorted(f"locker-{_SHORT[site]}-{n:02d}" for site in SITES for n in range(1, 7))


def seed_fleet(engine: Engine, now: datetime, *, minutes: int = 240) -> None:
    """Fill an empty database; telemetry reaches `minutes` back by the minute, and three days by the hour."""
    with write(engine) as session:
        seed = _Seed(session, now, minutes)
        seed_models(session, now)
        seed_compress_jobs(session, MODEL, now)
        for number, device in enumerate(device_ids()):
            _device(seed, number, device)
        _rollouts(seed)
        session.add(Revision(id=1, value=7))
        for key, (counts, scores, latency) in seed.fleet.items():
            session.add(
                FleetRollup(
                    level=key[0], bucket=key[1], model=MODEL, version=key[2], hardware_class=key[3], site=key[4],
                    requests=counts[0], errors=counts[1], score_count=counts[2], score_sum=scores[0],
                    latency=latency.encode(),
                )
            )  # fmt: skip


# --- devices ----------------------------------------------------------------------------------------------------------


def _device(seed: _Seed, number: int, device: str) -> None:
    site = next(name for name, short in _SHORT.items() if short == device.split("-")[1])
    hardware = CLASSES[number % 2]
    special = {"locker-den-06": "pending", "locker-rtm-05": "offline", "locker-sz-04": "broken"}.get(device, "")
    version, phase = _now_runs(device)
    row = Device(
        id=device,
        hardware_class=hardware,
        site=site,
        groups={"labels": {"hall": "AB"[number % 2]}},
        shard=number % 16,
        state="pending" if special == "pending" else "active",
        created_at=_ago(seed, days=10),
    )
    if special != "pending":
        row.enrolled_at = _ago(seed, days=9, hours=number)
        row.certificate_expires = _ago(seed, days=-81)
        row.last_seen = _ago(seed, hours=3, minutes=12) if special == "offline" else _ago(seed, seconds=number % 13)
        row.agent_version = "0.1.0"
        row.facts = {
            "cpu_count": 4, "memory_total_mb": 3792 if hardware == "pi4" else 15872, "kernel": "6.6.31",
            "cgroup": "v2 delegated", "runtime": "1.31.1", "arch": "aarch64" if hardware == "pi4" else "x86_64",
        }  # fmt: skip
        row.assignment_seq = 5 if version == 5 else 2
    seed.session.add(row)
    if special != "pending":
        slot = DeviceSlot(
            device_id=device, model=MODEL, version=version, sha256=f"{version * 7919:064x}"[::-1],
            standby_version=2 if version == 5 else 1, state="fallback" if special == "broken" else phase,
        )  # fmt: skip
        _history(seed, slot, version, phase)
        seed.session.add(slot)
        silent = 192 if special == "offline" else 0
        _telemetry(seed, row, [(3 * 1440, 1), (2 * 1440, 2), (31, version if version == 5 else 2)], silent)


_SECOND_WAVE = ("locker-den-03", "locker-hz-04", "locker-rtm-02", "locker-sz-03", "locker-den-05", "locker-hz-05")
_CANARIES = ("locker-den-01", "locker-hz-01", "locker-rtm-01", "locker-sz-01", "locker-hz-02")


def _now_runs(device: str) -> tuple[int, str]:
    if device in _CANARIES or device in _SECOND_WAVE[:3]:
        return 5, "committed"
    if device == _SECOND_WAVE[3]:
        return 5, "probation"
    return 2, "fetching" if device in _SECOND_WAVE[4:] else "idle"


def _history(seed: _Seed, slot: DeviceSlot, version: int, phase: str) -> None:
    device = slot.device_id
    runs: list[tuple[int, int, str, str | None]] = [(1, 9 * 1440, "proven", None), (2, 2 * 1440, "proven", None)]
    if device == "locker-hz-01":
        runs += [(3, 1300, "refused", "golden_failed"), (4, 900, "proven", None)]
    if version == 5 and phase == "committed":
        runs.append((5, 31, "proven", None))
    for seq, (number, minutes, outcome, code) in enumerate(runs, start=1):
        at = seed.now - timedelta(minutes=minutes)
        _run_events(seed, device, seq, number, at, code)
        _report(seed, device, seq, number, at, outcome, code)
    newest = runs[-1]
    slot.assigned_version, slot.seq = newest[0], len(runs)
    slot.rollout_id, slot.wave = f"r{newest[0]}-{MODEL}", 0 if device in _CANARIES else 1
    seed.session.add(
        DeviceAssignment(
            device_id=device, seq=len(runs), envelope=b"{}", issued_at=seed.now - timedelta(minutes=newest[1] + 2),
            expires_at=seed.now + timedelta(days=13), acknowledged=True,
        )
    )  # fmt: skip


def _run_events(seed: _Seed, device: str, seq: int, number: int, at: datetime, code: str | None) -> None:
    states = ["offered", "preflight", "fetching", "verifying", "loading", "golden"]
    states += ["discarding"] if code else ["bench", "ready", "swapping", "probation", "committed"]
    for step, state in enumerate(states):
        failed = state == "discarding"
        seed.session.add(
            DeviceEvent(
                device_id=device, at=at + timedelta(seconds=4 * step), kind="state", assignment_seq=seq, slot=MODEL,
                model=MODEL, version=number, state=state, code=code if failed else None,
                detail="accuracy 0.712 < 0.965" if failed else "",
            )
        )  # fmt: skip


def _report(seed: _Seed, device: str, seq: int, number: int, at: datetime, outcome: str, code: str | None) -> None:
    body: dict[str, Any] = {
        "active_version": 2 if code else number,
        "detail": "accuracy 0.712 < 0.965" if code else "",
        "golden": {"value": 0.712 if code else 0.979, "limit": 0.965, "passed": not code, "samples": 240},
        "bench": None if code or number == 1 else {"cpu_ratio": 0.47 + 0.02 * seed.chance.random()},
        "swap_ms": None if code else 4 + 3 * seed.chance.random(),
        "p99_ms": None if code else 30.0,
    }
    seed.session.add(
        DeviceReport(
            device_id=device, received_at=at + timedelta(seconds=70), assignment_seq=seq,
            rollout_id=f"r{number}-{MODEL}", model=MODEL, version=number, outcome=outcome, code=code,
            bytes_fetched=SIZES[number] + 41_000, served=0 if code else 60 + seed.chance.randrange(40),
            body=body, envelope=b"{}",
        )
    )  # fmt: skip


def _telemetry(seed: _Seed, row: Device, eras: list[tuple[int, int]], silent: int) -> None:
    """Hours for three days, minutes for the last ones; era = (minutes ago it began, version)."""
    start = int(seed.now.timestamp()) // 60 * 60
    for minute in range(seed.minutes, -1, -1):
        if minute >= silent:
            _bucket(seed, row, 60, start - minute * 60, _version_at(eras, minute))
    for hour in range(72, -1, -1):
        if hour * 60 >= silent:
            _bucket(seed, row, 3600, start // 3600 * 3600 - hour * 3600, _version_at(eras, hour * 60))
    for day in range(3, -1, -1):
        _bucket(seed, row, 86400, start // 86400 * 86400 - day * 86400, _version_at(eras, day * 1440))


def _version_at(eras: list[tuple[int, int]], minutes_ago: int) -> int:
    return next((version for began, version in reversed(eras) if minutes_ago <= began), eras[0][1])


def _bucket(seed: _Seed, row: Device, level: int, bucket: int, version: int) -> None:
    noise = seed.chance.randrange(12)
    shape = _shape(seed, row.hardware_class, version, noise)
    share = seed.chance.uniform(0.75, 1.0)
    requests, labels = int(118 * share) * _BLOCKS[level], 34 * _BLOCKS[level]
    errors = int(seed.chance.random() < 0.01)
    latency = Histogram({key: n * _BLOCKS[level] for key, n in shape._counts.items()})
    right = round(labels * min(1.0, seed.chance.gauss(_ACCURACY[version], 0.02 / _BLOCKS[level] ** 0.5)))
    memory = 62.0 + 28 * (version == 1) + seed.chance.random()
    seed.session.add(
        DeviceRollup(
            device_id=row.id, level=level, bucket=bucket, slot=MODEL, version=version, model=MODEL, requests=requests,
            errors=errors, latency=latency.encode(), score_sum=right, score_count=labels, rss_mb=memory,
            anon_mb=memory * 0.31,
        )
    )  # fmt: skip
    counts, scores, merged = seed.fleet.setdefault(
        (level, bucket, version, row.hardware_class, row.site), ([0, 0, 0], [0.0], Histogram())
    )
    counts[0], counts[1], counts[2] = counts[0] + requests, counts[1] + errors, counts[2] + labels
    scores[0] += right
    merged.merge(latency)
    if level == 60 and bucket > seed.now.timestamp() - 1000:
        seed.session.add(
            TelemetryWindow(
                device_id=row.id, slot=MODEL, model=MODEL, version=version, start=bucket * 1000, seconds=60,
                received=bucket * 1000, requests=requests, errors=errors, latency=latency.encode(), score_sum=right,
                score_count=labels, rss_mb=memory, anon_mb=memory * 0.31,
            )
        )  # fmt: skip


def _shape(seed: _Seed, hardware: str, version: int, noise: int) -> Histogram:
    key = (hardware, version, noise)
    if key not in seed.shapes:
        histogram = Histogram()
        base = _BASE_MS[hardware][version] * (1 + 0.012 * noise)
        for _ in range(100):
            histogram.add(base * seed.chance.lognormvariate(0, 0.12))
        for _ in range(2):
            histogram.add(base * seed.chance.uniform(1.6, 2.4))
        seed.shapes[key] = histogram
    return seed.shapes[key]


# --- rollouts ---------------------------------------------------------------------------------------------------------


def _rollouts(seed: _Seed) -> None:
    every = [device for device in device_ids() if device != "locker-den-06"]
    rest = [device for device in every if device not in (*_CANARIES, *_SECOND_WAVE)]
    plan = [list(_CANARIES), list(_SECOND_WAVE), rest]
    _rollout(seed, 1, "completed", 9 * 1440, [every], [["proven"] * 23], _on_devices(23))
    states = [["proven"] * len(wave) for wave in plan]
    _rollout(seed, 2, "completed", 2 * 1440, plan, states, _on_devices(23))
    refused = refused_decision(plan[0])
    untouched = [["skipped", "failed", *["skipped"] * 3], ["skipped"] * len(plan[1]), ["skipped"] * len(rest)]
    _rollout(seed, 3, "rolled_back", 1300, plan, untouched, _said(refused))
    _gate(seed, 3, 0, 1295, refused)
    back = [["rolled_back"] * 5, ["skipped"] * len(plan[1]), ["skipped"] * len(rest)]
    bad = bad_decision(plan[0])
    _rollout(seed, 4, "rolled_back", 900, plan, back, _said(bad))
    _gate(seed, 4, 0, 880, bad)
    going = ["proven"] * 3 + ["swapped"] + ["accepted", "published"]
    now = [["proven"] * 5, going, ["scheduled"] * len(rest)]
    good = _said(good_decision(plan[0]))
    _rollout(
        seed, 5, "running", 31, plan, now, Sentence("rollout.next_wave", sentence=good, wave="rest", size=6, total=23)
    )
    _gate(seed, 5, 0, 12, open_decision(plan[0]), final=False)
    _gate(seed, 5, 0, 8, good_decision(plan[0]))


def _on_devices(number: int) -> Sentence:
    return Sentence("rollout.proven", proven=number, total=number)


def _said(decided: tuple[str, str, dict[str, Any]]) -> Sentence:
    sentence = sentence_from(decided[2]["decision"]["said"])
    assert sentence == decided[1]
    return sentence


def _rollout(
    seed: _Seed, number: int, state: str, minutes: int, plan: list[list[str]], states: list[list[str]], reason: Sentence
) -> None:
    name, began = f"r{number}-{MODEL}", seed.now - timedelta(minutes=minutes)
    over = state not in ("running", "paused")
    policy = dump_policy(Policy(seed="7f3a"))
    seed.session.add(
        Rollout(
            id=name, model=MODEL, version=number, state=state, wave={"completed": len(plan) - 1, "rolled_back": 0}.get(state, 1), seed="7f3a",
            policy=msgspec.to_builtins(policy), reason=reason, said=reason.as_json(), created_at=began, created_by="admin", started_at=began,
            finished_at=began + timedelta(minutes=25) if over else None,
        )
    )  # fmt: skip
    for wave, (members, member_states) in enumerate(zip(plan, states, strict=True)):
        _wave(seed, name, wave, state, began, member_states)
        for device, member_state in zip(members, member_states, strict=True):
            failed = member_state == "failed"
            seed.session.add(
                RolloutDevice(
                    rollout_id=name, device_id=device, wave=wave, previous_version=2 if number > 2 else number - 1,
                    state=member_state, code="golden_failed" if failed else None,
                    reason="accuracy 0.712 < 0.965" if failed else "", published_at=began,
                )
            )  # fmt: skip


def _wave(seed: _Seed, name: str, wave: int, state: str, began: datetime, states: list[str]) -> None:
    stopped = "failed" if wave == 0 else "pending"
    going = ("passed", "running", "pending")[min(wave, 2)]
    said = {"completed": "passed", "rolled_back": stopped}.get(state, going)
    begun = said != "pending"
    seed.session.add(
        RolloutWave(
            rollout_id=name, number=wave, name="canary" if wave == 0 and len(states) < 10 else "", state=said,
            size=len(states), started_at=began + timedelta(minutes=8 * wave) if begun else None,
            soak_started_at=began + timedelta(minutes=8 * wave + 3) if said in ("passed", "failed") else None,
            finished_at=began + timedelta(minutes=8 * wave + 8) if said in ("passed", "failed") else None,
        )
    )  # fmt: skip


def _gate(
    seed: _Seed, number: int, wave: int, minutes: int, decided: tuple[str, str, dict[str, Any]], *, final: bool = True
) -> None:
    verdict, sentence, evidence = decided
    seed.session.add(
        GateDecision(
            rollout_id=f"r{number}-{MODEL}", wave=wave, at=seed.now - timedelta(minutes=minutes), verdict=verdict,
            sentence=sentence, final=final, evidence=evidence,
        )
    )  # fmt: skip


def _ago(seed: _Seed, **span: float) -> datetime:
    return seed.now - timedelta(**span)
