"""A database of the first release, brought to the newest revision: every row as that release wrote it, or with less.

Rows are written through the tables as revision 0001 made them, not through today's classes: what a later release added is not
there to be filled in. `absent` is what a JSON column holds where nothing is known: an empty object, or null. Jobs and bench rounds
came later; theirs are the sparsest rows that an earlier release, or an import from elsewhere, could have left.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, insert

from tests.support.seed_gate import bad_decision, refused_decision
from wavegate_server.adapters.database.connection import connect, open_engine
from wavegate_server.config import Settings
from wavegate_server.migrations import upgrade
from wavegate_server.services.first_start import initialise
from wavegate_shared.chunks import Chunk
from wavegate_shared.histogram import Histogram
from wavegate_shared.manifest import Artifact, Comparison, Golden, Manifest, encode_manifest
from wavegate_shared.metrics import Metric

__all__ = ["DEVICES", "FIRST", "JOBS", "MODELS", "ROLLOUTS", "make_oldest"]

FIRST = "0001"
MODELS = ("address-match", "bare", "empty")
DEVICES = ("as-written", "half-known", "unknown")
ROLLOUTS = ("r-written", "r-refused", "r-sparse", "r-empty")
JOBS = 7


def make_oldest(directory: Path, now: datetime, *, absent: dict[str, Any] | None) -> None:
    """A data directory whose database went through every revision since the first."""
    settings = Settings(data_dir=directory)
    initialise(settings, now)
    engine = open_engine(settings.db_url)
    upgrade(engine, to=FIRST)
    _fill(engine, lambda db: _first_release(db, now, absent))
    upgrade(engine)
    _fill(engine, lambda db: _later(db, now, absent))
    engine.dispose()


class _Tables:
    """Inserts into the tables that are there, column by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tables = MetaData()
        self._tables.reflect(connection)

    def add(self, table: str, **values: Any) -> None:
        self._connection.execute(insert(self._tables.tables[table]).values(**values))


def _fill(engine: Engine, write: Any) -> None:
    with connect(engine) as connection:
        write(_Tables(connection))


def _first_release(db: _Tables, now: datetime, absent: dict[str, Any] | None) -> None:
    db.add("revision", id=1, value=1)
    for name in MODELS:
        db.add(
            "model",
            name=name,
            task="",
            description="",
            created_at=now,
            revision=1,
            champion=1 if name == MODELS[0] else None,
        )
    _version(db, now, "address-match", 1, info={"bundle_sha256": "b" * 64, "golden_mean": 0.98})
    _version(db, now, "address-match", 2, info=absent, parent=1, denied=True)
    _version(db, now, "address-match", 3, info={"parameters": None, "flops": None}, parent=9, metric_value=None)
    _version(db, now, "bare", 1, info=absent, state="imported", metric_value=None, published_at=None)
    _device(
        db, now, "as-written", running=_slot(2), facts={"cpu_count": 4}, last_seen=now, groups={"labels": {"hall": "A"}}
    )
    _device(
        db,
        now,
        "half-known",
        running={"main": {"version": None, "state": None}, "other": absent},
        facts=absent,
        last_seen=now,
    )
    _device(db, now, "unknown", running=absent, facts=absent, groups=absent, quarantined=absent, enrolled_at=None)
    for device in DEVICES:
        _traces(db, now, device, absent)
    _rollouts(db, now, absent)


def _version(db: _Tables, now: datetime, model: str, number: int, **facts: Any) -> None:
    table = [
        Comparison(name="size", unit="MB", before=10.0, after=None),
        Comparison(name="odd", unit="", before=0.0, after=1.0),
    ]
    chunk = Chunk("c" * 64, 10)
    manifest = Manifest(
        schema=1, model=model, version=number, created="2026-01-05T08:00:00Z", task="",
        artifacts=[
            Artifact(name="model.onnx", role="model", sha256="a" * 64, size_bytes=10, chunks=[chunk]),
            Artifact(name="golden.npz", role="golden", sha256="d" * 64, size_bytes=10, chunks=[chunk]),
        ],
        inputs=[], outputs=[], metric=Metric("accuracy"), golden=Golden(artifact="golden.npz", limit=0.9, samples=0),
        comparison=table if number == 2 else [],
    )  # fmt: skip
    row: dict[str, Any] = {
        "model": model, "number": number, "state": "published", "created_at": now, "published_at": now,
        "manifest": encode_manifest(manifest), "manifest_sha256": "e" * 64, "size_bytes": 20, "recipe": "original",
        "parent": None, "denied": False, "metric_value": 0.97,
    }  # fmt: skip
    db.add("version", **{**row, **facts})


def _slot(version: int) -> dict[str, Any]:
    return {
        "main": {
            "model": "address-match",
            "version": version,
            "sha256": "e" * 64,
            "standby_version": 1,
            "state": "idle",
        }
    }


def _device(db: _Tables, now: datetime, device: str, **facts: Any) -> None:
    row: dict[str, Any] = {
        "id": device, "hardware_class": "", "site": "", "groups": {}, "shard": 0, "state": "active", "bench": False, "public_key": "",
        "certificate_serial": "", "created_at": now - timedelta(days=1), "enrolled_at": now, "last_seen": None,
        "agent_version": "", "running": {}, "facts": {}, "quarantined": {}, "clock": "ok", "assignment_seq": 0, "revision": 1,
    }  # fmt: skip
    db.add("device", **{**row, **facts})


def _traces(db: _Tables, now: datetime, device: str, absent: dict[str, Any] | None) -> None:
    """Events, reports, the newest assignment and telemetry of a device, each with nothing optional in it."""
    bodies: tuple[dict[str, Any] | None, ...] = (
        absent,
        {"golden": None, "bench": {}},
        {"detail": None, "golden": {"value": None}},
    )
    for seq, body in enumerate(bodies, start=1):
        outcome = ("proven", "refused", "an outcome of old")[seq - 1]
        db.add(
            "device_event",
            device_id=device,
            at=now,
            kind="of old",
            assignment_seq=seq,
            slot="",
            model="",
            version=0,
            state="",
            detail="",
        )
        db.add(
            "device_report", device_id=device, received_at=now, assignment_seq=seq, rollout_id=None, model="gone", version=seq,
            outcome=outcome, code=None, bytes_fetched=0, served=0, body=body, envelope=b"{}",
        )  # fmt: skip
    db.add(
        "device_event",
        device_id=device,
        at=now,
        kind="state",
        assignment_seq=1,
        slot="main",
        model="x",
        version=1,
        state="a phase of old",
        code="a_code_of_old",
        detail="",
    )
    db.add(
        "device_assignment", device_id=device, seq=3, rollout_id="r-written" if device == "as-written" else None, wave=None,
        model="gone", version=0, envelope=b"{}", issued_at=now, expires_at=now, acknowledged=False,
    )  # fmt: skip
    bucket, latency = int(now.timestamp()) // 60 * 60, Histogram().encode()
    db.add(
        "device_rollup", device_id=device, level=60, bucket=bucket, slot="main", version=2, model="address-match", requests=0,
        errors=0, latency=latency, score_sum=0.0, score_count=0, cpu_ms=0.0, rss_mb=None, anon_mb=None,
    )  # fmt: skip


def _first(decided: tuple[str, str, dict[str, Any]]) -> tuple[str, str, dict[str, Any]]:
    """A decision as the first release stored it: sentences were texts only."""
    verdict, sentence, evidence = decided
    decision = {name: value for name, value in evidence["decision"].items() if name not in ("said", "caveats_said")}
    results = [{name: value for name, value in each.items() if name != "why_code"} for each in decision["results"]]
    return verdict, sentence, {**evidence, "decision": {**decision, "results": results}}


def _rollouts(db: _Tables, now: datetime, absent: dict[str, Any] | None) -> None:
    decided = {
        "r-written": _first(bad_decision([f"d{n}" for n in range(5)])),
        "r-refused": _first(refused_decision(["as-written"])),
    }
    states = {"r-written": "rolled_back", "r-refused": "running", "r-sparse": "running", "r-empty": "a state of old"}
    for name in ROLLOUTS:
        policy = {"alpha": 0.01} if name == "r-written" else absent
        reason = decided[name][1] if name in decided else ""
        db.add(
            "rollout", id=name, model="address-match", version=2, state=states[name], wave=0, seed="s", policy=policy,
            reason=reason, created_at=now, created_by="", revision=1,
        )  # fmt: skip
        if name == "r-empty":
            continue
        db.add("rollout_wave", rollout_id=name, number=0, name="", state="soaking", size=0, approved_by="")
        for device in (*DEVICES, "never-heard-of"):
            db.add(
                "rollout_device", rollout_id=name, device_id=device, wave=0, previous_version=0, state="failed", attempt=1,
                assignment_seq=0, code="a_code_of_old" if device == "unknown" else None, reason="", rollback_seq=0,
            )  # fmt: skip
        verdict, sentence, evidence = decided.get(name, ("hold", "", absent))
        db.add(
            "gate_decision",
            rollout_id=name,
            wave=0,
            at=now,
            verdict=verdict,
            sentence=sentence,
            final=True,
            evidence=evidence,
        )
    inputs = decided["r-written"][2]["inputs"]
    for evidence in (
        {},
        {"inputs": inputs},
        {"inputs": {**inputs, "telemetry": None}, "decision": {}},
        {"inputs": None, "decision": None},
    ):
        db.add(
            "gate_decision",
            rollout_id="r-sparse",
            wave=0,
            at=now,
            verdict="a verdict of old",
            sentence="",
            final=False,
            evidence=evidence,
        )


def _later(db: _Tables, now: datetime, absent: dict[str, Any] | None) -> None:
    """Rows of tables that later releases added, as sparse as they come."""
    results: tuple[dict[str, Any] | None, ...] = (
        absent,
        {"chosen": "x"},
        {"candidates": [{"recipe": "original"}, {"recipe": "x", "size_bytes": 1, "p50_ms": None}], "verdicts": [{"item": "size=-10%"}]},
        {"candidates": [{"recipe": "original", "size_bytes": 0, "p50_ms": 0}, {"recipe": "x", "size_bytes": 0, "p50_ms": 0}],
         "chosen": "x", "comparison": [{"name": "size"}], "notes": None, "samples": None, "measured_on": None},
        {"candidates": "not a list"},
    )  # fmt: skip
    for result in results:
        _job(db, now, "not_met", result=result, progress=absent)
    _job(db, now, "running", result=absent, said=absent, progress={"stage": "a step of old"}, time_s=0.0)
    _job(db, now, "a state of old", result=absent, progress={"candidate": None})
    db.add(
        "bench_round", id="b-1", hardware_class="", model="gone", state="done", reason="", device_id="", timeout_s=1.0, wait_s=1.0,
        listed=False, created_at=now, created_by="", revision=1,
    )  # fmt: skip


def _job(db: _Tables, now: datetime, state: str, **facts: Any) -> None:
    row: dict[str, Any] = {
        "model": "address-match", "version": 1, "budget": "an item of old", "device_class": "", "time_s": 60.0, "state": state,
        "reason": "", "created_at": now, "created_by": "", "cancel_asked": False, "worker": "", "attempt": 0, "used_s": 0.0,
        "log": "", "revision": 1,
    }  # fmt: skip
    db.add("compress_job", **{**row, **facts})
