"""`wavegate compress`: a bundle in, a smaller and faster bundle out, with the verdict on every budget item."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from wavegate_server.adapters.bundles import open_bundle
from wavegate_server.cli_output import ExitCode, JsonFlag, lines, print_json, table
from wavegate_server.compress.job import Candidate, JobResult, run_job
from wavegate_server.core.budget import parse_budget
from wavegate_shared.manifest import Comparison

__all__ = ["compress", "print_comparison"]

_DEFAULT_BUDGET = "size=-70%,drop=2pt"


def compress(
    bundle: Annotated[Path, typer.Argument(help="Bundle to compress: a directory or a zip.")],
    budget: Annotated[
        str, typer.Option(help="What to reach, as size=-70%,drop=2pt,speed=1.3x or size<=5MB,accuracy>=0.97.")
    ] = _DEFAULT_BUDGET,
    out: Annotated[Path | None, typer.Option(help="Directory for the result; default BUNDLE-compressed.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a bundle smaller and faster within a budget.

    Every candidate is measured on the bundle's own samples beside the original, in one run. The verdict on accuracy uses
    the bad end of the interval: too few samples to prove a budget is not met. Measured on this host only.

    Example: wavegate compress ./address-match --budget size=-70%,drop=2pt,speed=1.3x --out ./address-match-int8
    """
    console = Console(stderr=True)
    target = out or bundle.with_name(f"{bundle.stem}-compressed")
    with open_bundle(bundle) as opened, console.status("opening the bundle") as status:
        items = parse_budget(budget, opened.spec.metric)
        result = run_job(opened, items, target, lambda step: status.update(step))
    if as_json:
        print_json(_as_json(result, target))
    else:
        _print(result, target)
    raise typer.Exit(ExitCode.OK if result.chosen else ExitCode.NOT_MET)


def print_comparison(rows: list[Comparison]) -> None:
    """Print the before/after table with the change of each row."""
    cells = [(f"{row.name} ({row.unit})", _figure(row.before), _figure(row.after), _change(row)) for row in rows]
    table(("", "before#", "after#", "change#"), cells, empty="nothing was compared")


def _change(row: Comparison) -> str:
    if row.before is None or row.after is None:
        return ""
    if row.unit == "share":
        return f"{(row.after - row.before) * 100:+.2f} pt"
    return f"{(row.after / row.before - 1) * 100:+.1f} %" if row.before else ""


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _print(result: JobResult, target: Path) -> None:
    lines(f"{result.samples} paired samples, one thread, measured on this host only")
    columns = ("recipe", "size MB#", "p50 ms#", "metric#", "drop pt#", "at most#", "agreement#", "verdict")
    table(columns, [_row(c, chosen=c is result.chosen) for c in result.candidates], empty="no recipe fits this model")
    if result.chosen is None:
        lines("budget not met: the original stays the best answer")
        return
    lines(*(f"  {'met' if verdict.met else 'NOT met'}: {verdict.item}" for verdict in result.chosen.verdicts), "")
    print_comparison(result.comparison)
    lines(f"written to {target}; next: wavegate model import {target}")


def _row(candidate: Candidate, *, chosen: bool) -> list[str]:
    m = candidate.measured
    if m is None:
        return [candidate.recipe, "", "", "", "", "", "", candidate.reason]
    verdict = "chosen" if chosen else candidate.reason or "meets the budget"
    figures = [f"{m.size_bytes / 1e6:.2f}", f"{m.p50_ms:.2f}", f"{m.value:.4f}"]
    drops = [f"{m.drop.value * 100:.2f}", f"{m.drop.high * 100:.2f}", f"{candidate.agreement:.4f}"]
    return [candidate.recipe, *figures, *drops, verdict]


def _as_json(result: JobResult, target: Path) -> dict[str, object]:
    return {
        "verdicts": [msgspec.to_builtins(verdict) for verdict in result.chosen.verdicts] if result.chosen else [],
        "candidates": [_candidate_json(candidate) for candidate in result.candidates],
        "chosen": result.chosen.recipe if result.chosen else None,
        "comparison": msgspec.to_builtins(result.comparison),
        "samples": result.samples,
        "measured_on": "host only",
        "out": str(target) if result.chosen else None,
    }


def _candidate_json(candidate: Candidate) -> dict[str, object]:
    m = candidate.measured
    return {
        "recipe": candidate.recipe,
        "size_bytes": m.size_bytes if m else None,
        "p50_ms": m.p50_ms if m else None,
        "metric": m.value if m else None,
        "drop_pt": m.drop.value * 100 if m else None,
        "drop_high_pt": m.drop.high * 100 if m else None,
        "agreement": candidate.agreement if m else None,
        "offered": candidate.offered,
        "reason": candidate.reason,
        "verdicts": [msgspec.to_builtins(verdict) for verdict in candidate.verdicts],
    }
