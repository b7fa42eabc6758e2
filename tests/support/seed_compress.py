"""The seeded fleet's compression jobs: one running, one that met its budget and became v2, one that did not, one that failed."""

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session

from wavegate_server.adapters.database.tables import CompressEvent, CompressJob
from wavegate_server.core.sentences import Sentence, said_of

__all__ = ["seed_compress_jobs"]

_ROWS: tuple[tuple[Any, ...], ...] = (
    # recipe, bytes, p50, loss, at most, agreement, offered, front, reason
    (
        "original",
        11_900_000,
        4.10,
        0.0,
        0.0,
        1.0,
        False,
        False,
        Sentence("candidate.original_misses", names=["size=-70%"]),
    ),
    ("int8-dynamic-per-channel", 3_420_000, 1.66, 0.05, 0.31, 0.997, True, True, ""),
    (
        "int8-dynamic-per-tensor",
        3_380_000,
        1.58,
        0.15,
        0.48,
        0.9915,
        True,
        True,
        Sentence("candidate.behind", name="int8-dynamic-per-channel"),
    ),
    (
        "int8-static-matmul",
        3_400_000,
        2.16,
        1.9,
        2.6,
        0.968,
        False,
        False,
        Sentence("candidate.misses", names=["drop=1pt"]),
    ),
    ("int4-int8-embedding", 2_510_000, 4.66, 0.4, 0.9, 0.992, False, True, Sentence("candidate.slower", factor="0.88")),
    ("float16", 5_960_000, 4.28, 0.0, 0.14, 1.0, False, False, Sentence("candidate.misses", names=["size=-70%"])),
    (
        "int8-static-full",
        3_210_000,
        1.94,
        31.0,
        34.2,
        0.66,
        False,
        True,
        Sentence("candidate.misses", names=["drop=1pt"]),
    ),
    ("int8-weights", 3_420_000, 15.2, 0.0, 0.14, 1.0, False, False, Sentence("candidate.misses", names=["speed=2x"])),
)
_NOTE = Sentence("note.calib", chosen=256, judged=2000)
_FAILED = ("int8-static-percentile", "it did not finish within 300 s")


def seed_compress_jobs(session: Session, model: str, now: datetime) -> None:
    """Write the jobs and their events."""
    met = _job(model, now, "met", hours=96, budget="size=-70%,drop=1pt,speed=2x", result_version=2)
    met.result = _result("int8-dynamic-per-channel", drop=(0.0005, -0.0012, 0.0031), low_drop=True)
    missed = _job(model, now, "not_met", hours=5, budget="size=-90%,drop=0.2pt,accuracy>=0.97", device_class="pi4")
    missed.reason = Sentence("job.not_met")
    missed.said = missed.reason.as_json()
    missed.result = {**_result(None, drop=(0.0005, -0.0012, 0.0031), low_drop=False), "for": "pi4"}
    failed = _job(model, now, "failed", hours=4, budget="size=-70%")
    failed.reason, failed.code = "the original gives outputs that are not finite (NaN or infinite)", "bundle_invalid"
    running = _job(model, now, "running", hours=0.05, budget="size=-70%,drop=1pt")
    running.finished_at, running.used_s, running.attempt = None, 164.0, 1
    running.progress = {
        "stage": "distilling",
        "candidate": "layers2-heads6-ffn768",
        "best": "int8-dynamic-per-channel",
        "detail": "epoch 2, step 300 of 900",
        "share": 0.27,
    }
    queued = _job(model, now, "queued", hours=0.01, budget="size<=3MB,drop=2pt")
    queued.started_at = queued.finished_at = None
    queued.used_s = 0.0
    session.add_all([met, missed, failed, running, queued])
    session.flush()
    for at, stage in enumerate(("measuring the original", "quantising", "distilling")):
        session.add(
            CompressEvent(job_id=running.id or 0, at=now, stage=stage, candidate="x" if at else "", share=at / 10)
        )


def _job(model: str, now: datetime, state: str, *, hours: float, budget: str, **more: Any) -> CompressJob:
    at = now - timedelta(hours=hours)
    return CompressJob(
        model=model,
        version=1,
        budget=budget,
        time_s=600.0,
        state=state,
        created_at=at,
        created_by="a-publisher",
        started_at=at,
        finished_at=at + timedelta(seconds=214),
        used_s=214.0,
        **more,
    )


def _result(chosen: str | None, *, drop: tuple[float, float, float], low_drop: bool) -> dict[str, Any]:
    value, low, high = drop
    if low_drop:
        verdicts = [
            {"item": "size=-70%", "met": True, "value": -0.7126, "low": None, "high": None},
            {"item": "drop=1pt", "met": True, "value": value, "low": low, "high": high},
            {"item": "speed=2x", "met": True, "value": 2.47, "low": None, "high": None},
        ]
    else:
        verdicts = [
            {"item": "size=-90%", "met": False, "value": -0.7126, "low": None, "high": None},
            {"item": "drop=0.2pt", "met": False, "value": value, "low": low, "high": high},
            {"item": "accuracy>=0.97", "met": True, "value": 0.9815, "low": 0.9789, "high": 0.9832},
        ]
    rows: list[dict[str, Any]] = [
        {
            "recipe": recipe, "size_bytes": size, "p50_ms": p50, "metric": 0.982 - loss / 100, "drop_pt": loss,
            "drop_high_pt": most, "agreement": agreement, "offered": offered and chosen is not None, "pareto": front,
            "reason": str(reason), "reason_said": said_of(reason),
        }
        for recipe, size, p50, loss, most, agreement, offered, front, reason in _ROWS
    ]  # fmt: skip
    rows.append({"recipe": _FAILED[0], "size_bytes": None, "p50_ms": None, "offered": False, "reason": _FAILED[1]})
    table = [("size", "MB", 11.9, 3.42), ("latency p50", "ms", 4.1, 1.66), ("peak memory", "MB", 92.0, 71.0)]
    table += [("CPU time per inference", "ms", 4.05, 1.64), ("accuracy", "share", 0.982, 0.9815)]
    return {
        "verdicts": verdicts,
        "candidates": rows,
        "chosen": chosen,
        "words": [],
        "comparison": [dict(zip(("name", "unit", "before", "after"), row, strict=True)) for row in table]
        if chosen
        else [],
        "samples": 2000,
        "measured_on": "host only",
        "for": None,
        "threads": 1,
        "notes": [str(_NOTE)],
        "notes_said": [_NOTE.as_json()],
        "seconds": 214.0,
    }
