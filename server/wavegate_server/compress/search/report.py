"""What a job reports: its candidates, the Pareto front, the signed before/after table, the result bundle."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from wavegate_server.adapters.files.bundles import SPEC_FILE, Bundle, write_bundle
from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.compress.search.workbench import Preprocessing
from wavegate_server.core.bundle_spec import artifact_roles
from wavegate_server.core.compress.budget import Measured, Verdict
from wavegate_server.core.sentences import said_of
from wavegate_shared.manifest import Comparison

__all__ = ["Candidate", "Event", "JobResult", "as_json", "pareto", "write_result"]

PLAN_FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a job, for a progress display.

    Attributes:
        best: names the best candidate so far, where there is one.
        detail: how far a long step is, as "epoch 2, step 300 of 900, loss 0.021, best drop 0.40 pt".
    """

    stage: str
    candidate: str = ""
    best: str = ""
    detail: str = ""

    def __str__(self) -> str:
        parts = [f"{self.candidate}: {self.stage}" if self.candidate else self.stage]
        parts += [self.detail] if self.detail else []
        return " · ".join([*parts, f"best so far {self.best}"] if self.best else parts)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tried recipe. `offered` is False with a `reason` when it must not be chosen; an offer's reason is a remark."""

    recipe: str
    path: Path | None
    measured: Measured | None
    cpu_ms: float
    agreement: float
    verdicts: list[Verdict]
    words: list[str]
    offered: bool
    reason: str
    notes: list[str] = field(default_factory=list)
    plan: dict[str, str] = field(default_factory=dict)
    float_nodes: list[str] = field(default_factory=list)
    front: Preprocessing | None = None
    measured_on: str = ""  # a device; empty for the host

    @classmethod
    def failed(cls, recipe: str, reason: str) -> "Candidate":
        """A row for a recipe that gave nothing to measure."""
        return cls(recipe, None, None, 0.0, 0.0, [], [], offered=False, reason=reason)

    def because(self, reason: str) -> "Candidate":
        """The same row with another reason."""
        return replace(self, reason=reason)


@dataclass(frozen=True, slots=True)
class JobResult:
    """What came out.

    Attributes:
        candidates: the original first, then every recipe in the order tried.
        chosen: the answer; the original itself when only it meets the budget; None when nothing does.
        judged: whose verdicts are reported: the chosen one, else the one that missed least.
        samples: number of samples the verdicts are from.
        measured_on: where times and memory are from.
        device: what the device round gave, as the server tells it; None without one.
    """

    candidates: list[Candidate]
    chosen: Candidate | None
    judged: Candidate
    comparison: list[Comparison]
    samples: int
    notes: list[str]
    device_class: str
    seconds: float
    cached_steps: int
    measured_on: str = "host only"
    device: dict[str, Any] | None = None


def pareto(candidates: Sequence[Candidate]) -> set[str]:
    """Names of the candidates that no other beats in size, latency and drop at once."""
    # shares of the original's time: rows may come from different machines
    points = {c.recipe: (m.size_bytes, m.p50_ms / m.p50_before, m.drop.value) for c in candidates if (m := c.measured)}
    return {
        name
        for name, mine in points.items()
        if not any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in points.values())
    }


def write_result(bundle: Bundle, result: JobResult, out: Path) -> None:
    """Write the chosen candidate as a bundle, with its lineage, its table and the precision of each node."""
    chosen = result.chosen
    if chosen is None or chosen.path is None:
        raise AssertionError("an offered candidate has a file")
    spec = bundle.spec
    document = yaml.safe_load((bundle.directory / SPEC_FILE).read_text(encoding="utf-8"))
    document["stored"] = "float32"
    document["recipe"] = chosen.recipe
    document["parent"] = {"sha256": file_sha256(bundle.model_path)}
    document["comparison"] = [msgspec.to_builtins(row) for row in result.comparison]
    document["plan"] = {"file": PLAN_FILE}
    for only_the_originals in ("source", "train"):
        document.pop(only_the_originals, None)
    names = set(artifact_roles(spec)) | {entry.file for entry in (spec.calib, spec.eval) if entry}
    files = {name: chosen.path if name == spec.model_file else bundle.path(name) for name in sorted(names)}
    if chosen.front is not None:
        document["pre"] = chosen.front.pre
        files.update(chosen.front.files)
    with tempfile.TemporaryDirectory(prefix="wavegate-plan-") as scratch:
        plan = Path(scratch) / PLAN_FILE
        text = {"recipe": chosen.recipe, "nodes": chosen.plan, "kept_float": chosen.float_nodes, "notes": chosen.notes}
        plan.write_text(json.dumps(text, indent=1), encoding="utf-8")
        write_bundle(out, document, {**files, PLAN_FILE: plan})


def as_json(result: JobResult, out: Path | None) -> dict[str, Any]:
    """The machine's form of a result."""
    front = pareto(result.candidates)
    return {
        "verdicts": [msgspec.to_builtins(verdict) for verdict in result.judged.verdicts],
        "candidates": [_row(candidate, front) for candidate in result.candidates],
        "chosen": result.chosen.recipe if result.chosen else None,
        "words": result.judged.words,
        "comparison": msgspec.to_builtins(result.comparison),
        "samples": result.samples,
        "measured_on": result.measured_on,
        "device_round": result.device,
        "for": result.device_class or None,
        "threads": 1,
        "notes": [str(note) for note in result.notes],
        "notes_said": [said_of(note) for note in result.notes],
        "seconds": round(result.seconds, 1),
        "cached_steps": result.cached_steps,
        "out": str(out) if out else None,
    }


def _row(candidate: Candidate, front: set[str]) -> dict[str, Any]:
    m = candidate.measured
    return {
        "recipe": candidate.recipe,
        "size_bytes": m.size_bytes if m else None,
        "download_bytes": (m.download_bytes or None) if m else None,
        "p50_ms": m.p50_ms if m else None,
        "p50_before_ms": m.p50_before if m else None,
        "measured_on": candidate.measured_on or "host",
        "metric": m.value if m else None,
        "drop_pt": m.drop.value * 100 if m else None,
        "drop_high_pt": m.drop.high * 100 if m else None,
        "agreement": candidate.agreement if m else None,
        "offered": candidate.offered,
        "reason": str(candidate.reason),
        "reason_said": said_of(candidate.reason),
        "pareto": candidate.recipe in front,
        "notes": candidate.notes,
        "float_nodes": candidate.float_nodes,
        "verdicts": [msgspec.to_builtins(verdict) for verdict in candidate.verdicts],
    }
