"""The device round of a job: the best candidates measured beside the original on a device of the class the result is for.

The host's ranking is only a pre-filter: data types moved it 3.4 times, runtimes 9 times. What the device measured takes the
place of the host's times and memory in the verdicts; the metric's verdicts stay, they are from more samples than a device
has. No device, or one that is away, refuses or takes too long: the host's verdicts stand, and the result says why.

Not here: how a round reaches a device (`bench_client`, `bench_box`), running it (`bench_rounds`).
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import yaml

from wavegate_server.adapters.files.bundles import SPEC_FILE, Bundle, write_bundle
from wavegate_server.compress.search.report import Candidate, pareto
from wavegate_server.compress.search.rows import (
    OF_METRIC,
    behind,
    comparison,
    missed_items,
    no_gain,
    original_row,
    slower,
    with_verdicts,
)
from wavegate_server.compress.search.workbench import Made
from wavegate_server.core.bundle_spec import artifact_roles
from wavegate_server.core.compress.budget import BudgetItem, Measured
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import WavegateError
from wavegate_shared.manifest import Comparison

__all__ = ["HOST_ONLY", "DeviceFigures", "DeviceRound", "DeviceRow", "OnDevice", "Tell", "on_device", "read_round"]

Tell = Callable[[str, str], None]
"""Told what the round is at, and which candidate."""
HOST_ONLY = "host only"
MOST, FEWEST = 6, 3
"""Candidates a round takes where there are as many."""
_SERVER_SIDE = ("calib", "eval", "plan", "source", "train", "parent")


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """What a device's signed report says of a candidate; `problem` where it could not measure it.

    Attributes:
        before: the same figures of the original, measured in turn with it: p50_ms, p95_ms, cpu_ms, peak_mb.
        report: the whole `Bench` of the report.
    """

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    cpu_ms: float = 0.0
    peak_mb: float | None = None
    before: Mapping[str, float | None] = field(default_factory=dict)
    golden_passed: bool = True
    problem: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def p50_before(self) -> float:
        """The original's median beside it, or less where the pairs say less: two medians of a noisy minute prove no speed."""
        raw, ratio = float(self.before.get("p50_ms") or 0.0), self.report.get("wall_ratio")
        return min(raw, self.p50_ms / float(ratio)) if ratio else raw


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """How a round ended. `problem`: why nothing was measured, or ""."""

    device: str
    hardware_class: str
    rows: Mapping[str, DeviceRow]
    round_id: str = ""
    problem: str = ""

    @property
    def place(self) -> str:
        """Where it was measured, for the reader."""
        return f"{self.device}, class {self.hardware_class}"

    def as_json(self) -> dict[str, Any]:
        """For the result's readers: each candidate's `Bench` as the device signed it."""
        rows = {name: dict(row.report) or {"problem": row.problem} for name, row in self.rows.items()}
        about = {"id": self.round_id, "device": self.device, "class": self.hardware_class}
        return {**about, "problem": self.problem, "candidates": rows}


class DeviceRound(Protocol):
    """Has candidates measured on a device."""

    def measure(self, original: Path, candidates: Mapping[str, Path], tell: Tell) -> DeviceFigures:
        """Bundles (directories) by name, measured beside the original's. Raises WavegateError when that cannot be asked for."""


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A job's rows after the device round. `place` is `HOST_ONLY` where the host's verdicts stand."""

    candidates: list[Candidate]
    winner: Candidate | None
    original: Candidate
    place: str = HOST_ONLY
    comparison: list[Comparison] | None = None
    notes: list[str] = field(default_factory=list)
    figures: DeviceFigures | None = None


def on_device(
    device_round: DeviceRound,
    bundle: Bundle,
    original: Made,
    rows: OnDevice,
    budget: Sequence[BudgetItem],
    tell: Tell,
) -> OnDevice:
    """The rows judged with the device's figures, or as they were with a note that says why not."""
    chosen = _finalists(rows)
    if not chosen:
        return replace(rows, notes=[Sentence("note.not_worth")])
    with tempfile.TemporaryDirectory(prefix="wavegate-round-") as scratch:
        place = Path(scratch)
        first = _device_bundle(bundle, original.path, None, place / "original")
        others = {
            row.recipe: _device_bundle(bundle, row.path, row, place / str(number))
            for number, row in enumerate(chosen)
            if row.path is not None
        }
        try:
            figures = device_round.measure(first, others, tell)
        except WavegateError as error:
            return replace(rows, notes=[Sentence("note.host_only", why=error.detail)])
    good = {name: row for name, row in figures.rows.items() if not row.problem and row.p50_ms and row.p50_before}
    if not good:
        why = figures.problem or "; ".join(f"{name}: {row.problem}" for name, row in figures.rows.items())
        return replace(
            rows, notes=[Sentence("note.host_only", why=why or Sentence("note.nothing_measured"))], figures=figures
        )
    return _judged(rows, figures, good, budget)


def read_round(view: Mapping[str, Any]) -> DeviceFigures:
    """The figures in a finished round as the API tells it."""
    rows = {str(each["name"]): _row(each) for each in view["candidates"]}
    problem = "" if view["state"] == "done" else str(view["reason"])
    return DeviceFigures(str(view["device"]), str(view.get("class", "")), rows, str(view["id"]), problem)


def _row(each: Mapping[str, Any]) -> DeviceRow:
    bench, golden = each.get("bench"), each.get("golden") or {}
    if each["state"] != "benched" or not bench or not bench.get("beside"):
        said = " ".join(str(part) for part in (each.get("code"), each.get("detail")) if part)
        return DeviceRow(golden_passed=each.get("code") != "golden_failed", problem=said or str(each["state"]))
    return DeviceRow(
        p50_ms=bench["p50_ms"],
        p95_ms=bench["p95_ms"],
        cpu_ms=bench["cpu_ms"],
        peak_mb=bench.get("peak_mb"),
        before={name: bench["beside"].get(name) for name in ("p50_ms", "p95_ms", "cpu_ms", "peak_mb")},
        golden_passed=bool(golden.get("passed", True)),
        report=bench,
    )


def _finalists(rows: OnDevice) -> list[Candidate]:
    """The answer, other offers, then the Pareto front, then what misses least."""
    measured = [row for row in rows.candidates if row.measured is not None and row.path is not None]
    front = pareto(measured)
    missed = {row.recipe: sum(not verdict.met for verdict in row.verdicts) for row in measured}
    order = sorted(
        measured,
        key=lambda row: (row is not rows.winner, not row.offered, row.recipe not in front, missed[row.recipe]),
    )
    wanted = [row for row in order if row is rows.winner or row.offered or row.recipe in front]
    return (wanted if len(wanted) >= FEWEST else order[:FEWEST])[:MOST]


def _device_bundle(bundle: Bundle, model: Path, row: Candidate | None, target: Path) -> Path:
    """What a device needs of the bundle, around another model file; samples and sources stay on this side."""
    spec = bundle.spec
    document = yaml.safe_load((bundle.directory / SPEC_FILE).read_text(encoding="utf-8"))
    for name in _SERVER_SIDE:
        document.pop(name, None)
    document |= {"stored": "float32", "recipe": row.recipe if row else "original", "comparison": []}
    files = {name: model if name == spec.model_file else bundle.path(name) for name in artifact_roles(spec)}
    if row is not None and row.front is not None:
        document["pre"] = row.front.pre
        files.update(row.front.files)
    write_bundle(target, document, files)
    return target


def _judged(
    rows: OnDevice, figures: DeviceFigures, good: Mapping[str, DeviceRow], budget: Sequence[BudgetItem]
) -> OnDevice:
    there = [_again(row, figures, budget) if row.recipe in figures.rows else row for row in rows.candidates]
    named = {row.recipe: row for row in there}
    ends = [rows.winner.recipe] if rows.winner else []
    ends += sorted((name for name in good if name not in ends), key=lambda name: _cost(named[name], good[name]))
    winner = next((named[name] for name in ends if name in good and named[name].offered), None)
    left = [row.recipe for row in there if row.measured is not None and row.recipe not in good]
    notes: list[str] = [Sentence("note.on_device", device=figures.place, round=figures.round_id)]
    if left:
        notes.append(Sentence("note.not_on_device", names=left))
    if rows.winner is not None and winner is not None and winner.recipe != rows.winner.recipe:
        notes.append(Sentence("note.other_answer", name=rows.winner.recipe, other=winner.recipe))
    shown = [behind(row, winner) for row in there]
    return OnDevice(
        candidates=shown,
        winner=next((row for row in shown if winner and row.recipe == winner.recipe), None),
        original=_original(rows.original, good, budget),
        place=figures.place,
        comparison=_table(rows, winner, good[winner.recipe], figures) if winner else [],
        notes=notes,
        figures=figures,
    )


def _again(row: Candidate, figures: DeviceFigures, budget: Sequence[BudgetItem]) -> Candidate:
    """A row with the device's figures in the place of the host's, and the verdicts they give."""
    found, measured = figures.rows[row.recipe], row.measured
    if measured is None:
        return row
    if found.problem or not found.p50_before:
        problem = found.problem or Sentence("candidate.no_figures")
        refused = Sentence("candidate.on_device", device=figures.device, why=problem)
        return replace(row, offered=False, reason=refused)
    fresh = with_verdicts(row, _measured(measured, found), budget, cpu_ms=found.cpu_ms)
    reason = _refusal(row, fresh, figures.device, budget)
    factor = slower(_measured(measured, found))
    remark = Sentence("candidate.slower_there", factor=factor) if factor else ""
    return replace(fresh, offered=not reason, reason=reason or remark, measured_on=figures.place)


def _refusal(host: Candidate, row: Candidate, device: str, budget: Sequence[BudgetItem]) -> str:
    """Why the device's figures, or what the host alone can judge, speak against the candidate; empty where nothing does."""
    if missed := missed_items(row.verdicts):
        return Sentence("candidate.misses_there", names=missed, device=device)
    if not _host_agrees(host, budget) and host.reason:
        return host.reason
    return Sentence("candidate.no_gain") if row.measured is not None and no_gain(row.measured) else ""


def _host_agrees(row: Candidate, budget: Sequence[BudgetItem]) -> bool:
    """Whether the host refused it, if at all, only for what the device has now measured itself."""
    kinds = {item.text: item.kind for item in budget}
    missed = [verdict.item for verdict in row.verdicts if not verdict.met]
    return row.offered or bool(missed and not any(kinds.get(item) in OF_METRIC for item in missed))


def _measured(measured: Measured, found: DeviceRow) -> Measured:
    peak = measured.peak_mb if found.peak_mb is None else found.peak_mb
    return replace(measured, p50_ms=found.p50_ms, p50_before=found.p50_before, p95_ms=found.p95_ms, peak_mb=peak)


def _original(row: Candidate, good: Mapping[str, DeviceRow], budget: Sequence[BudgetItem]) -> Candidate:
    """The original's row: medians over the pairs it was measured in."""
    if row.measured is None:
        return row

    def middle(name: str, host: float) -> float:
        values = [value for found in good.values() if (value := found.before.get(name)) is not None]
        return median(values) if values else host

    p50 = middle("p50_ms", row.measured.p50_ms)
    fresh = replace(
        row.measured,
        p50_ms=p50,
        p50_before=p50,
        p95_ms=middle("p95_ms", row.measured.p95_ms),
        peak_mb=middle("peak_mb", row.measured.peak_mb),
    )
    return original_row(row, fresh, budget, cpu_ms=middle("cpu_ms", row.cpu_ms))


def _cost(row: Candidate, found: DeviceRow) -> float:
    """Smaller is better: size and time as shares of the original's."""
    size = row.measured.size_bytes / row.measured.size_before if row.measured else float("inf")
    return size + found.p50_ms / found.p50_before


def _table(rows: OnDevice, winner: Candidate, found: DeviceRow, figures: DeviceFigures) -> list[Comparison]:
    """The five rows that go signed into the manifest, each with where it was measured."""
    host_peak = rows.original.measured.peak_mb if rows.original.measured else None
    on_host = found.peak_mb is None or found.before.get("peak_mb") is None
    return comparison(
        winner.measured,
        cpu_ms=found.cpu_ms,
        cpu_before=found.before.get("cpu_ms"),
        peak_before=host_peak if on_host else found.before.get("peak_mb"),
        where=figures.place,
        peak_where="" if on_host else figures.place,
    )
