"""`wavegate compress`: a bundle in, a smaller and faster bundle out, with the verdict on every budget item."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wavegate_server.adapters.bundles import open_bundle
from wavegate_server.cli_output import ExitCode, JsonFlag, lines, print_json, table
from wavegate_server.compress.cache import default_directory
from wavegate_server.compress.job import Candidate, JobResult, Options, run_job
from wavegate_server.compress.report import as_json as result_json
from wavegate_server.compress.report import pareto
from wavegate_server.core.budget import parse_budget
from wavegate_shared.manifest import Comparison

__all__ = ["compress", "print_comparison"]

_DEFAULT_BUDGET = "size=-70%,drop=2pt"
_UNITS = {"s": 1.0, "": 60.0, "m": 60.0, "h": 3600.0}


def compress(
    bundle: Annotated[Path, typer.Argument(help="Bundle to compress: a directory or a zip.")],
    budget: Annotated[
        str, typer.Option(help="What to reach, as size=-70%,drop=2pt,speed=1.3x or size<=5MB,accuracy>=0.97.")
    ] = _DEFAULT_BUDGET,
    out: Annotated[Path | None, typer.Option(help="Directory for the result; default BUNDLE-compressed.")] = None,
    time: Annotated[
        str, typer.Option(help="When to stop trying, as 90s, 10m or 1h; what was found is judged.")
    ] = "10m",
    device_class: Annotated[
        str,
        typer.Option(
            "--for", metavar="CLASS", help="Hardware class the result is for; recorded, measured on this host."
        ),
    ] = "",
    metric: Annotated[
        str, typer.Option(help="Judge by your own metric: file.py:function(outputs, labels) -> number, for any subset.")
    ] = "",
    cache: Annotated[
        Path | None, typer.Option(help="Where finished steps are kept; else WAVEGATE_CACHE, else the user's cache.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a smaller, faster bundle within a budget.

    Every candidate is measured on the bundle's own samples beside the original, in one run, and judged on samples that chose
    nothing. The verdict on accuracy uses the bad end of the interval: too few samples to prove a budget is not met. Measured
    on this host only. A job that was stopped goes on from its finished steps.

    Example: wavegate compress ./address-match --budget size=-70%,drop=2pt,speed=1.3x --out ./address-match-int8
    """
    console = Console(stderr=True)
    target = out or bundle.with_name(f"{bundle.stem}-compressed")
    options = Options(_seconds(time), cache or default_directory(), device_class, metric)
    with open_bundle(bundle) as opened, console.status("opening the bundle") as status:
        items = parse_budget(budget, opened.spec.metric)
        try:
            result = run_job(opened, items, target, lambda event: status.update(str(event)), options)
        except KeyboardInterrupt:
            console.print("stopped; nothing was written, finished steps are kept: the same command goes on from them")
            raise typer.Exit(ExitCode.FAILURE) from None
    written = target if result.chosen and result.chosen.path else None
    if as_json:
        print_json(result_json(result, written))
    else:
        _print(result, written)
    raise typer.Exit(ExitCode.OK if result.chosen else ExitCode.NOT_MET)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is no time; write 90s, 10m or 1h", param_hint="--time")
    return float(match[1]) * _UNITS[match[2]]


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


def _print(result: JobResult, written: Path | None) -> None:
    place = "host only" + (f", not on a device of class {result.device_class}" if result.device_class else "")
    lines(f"{result.samples} paired samples, one thread, measured: {place}; {result.seconds:.0f} s")
    lines(*(f"  {note}" for note in result.notes))
    front = pareto(result.candidates)
    columns = ("recipe", "", "size MB#", "p50 ms#", "speed#", "metric#", "drop#", "at most#", "agreement#", "verdict")
    rows = [_row(c, chosen=c is result.chosen, front=c.recipe in front) for c in result.candidates]
    table(columns, rows, empty="no recipe fits this model")
    lines("* no other candidate is better in size, latency and drop at once")
    lines(*(f"  {sentence}" for sentence in result.judged.words), "")
    if result.chosen is None:
        lines("budget not met: the original stays the best answer")
    elif written is None:
        lines("the original meets the budget as it is, and nothing better was found: nothing was written")
    else:
        print_comparison(result.comparison)
        lines(f"written to {written}; next: wavegate model import {written}")


def _row(candidate: Candidate, *, chosen: bool, front: bool) -> list[str]:
    m = candidate.measured
    star = "*" if front else ""
    if m is None:
        return [candidate.recipe, star, "", "", "", "", "", "", "", candidate.reason]
    verdict = "chosen" if chosen else candidate.reason or "meets the budget"
    if chosen and candidate.reason:
        verdict = f"chosen; {candidate.reason}"
    percent = m.metric.unit == "share"
    drops = [f"{value * 100:.2f} pt" if percent else f"{value:.4g}" for value in (m.drop.value, m.drop.high)]
    speed = m.p50_before / m.p50_ms if m.p50_ms else 0.0
    figures = [f"{m.size_bytes / 1e6:.2f}", f"{m.p50_ms:.2f}", f"{speed:.2f}x", f"{m.value:.4f}"]
    return [candidate.recipe, star, *figures, *drops, f"{candidate.agreement:.4f}", verdict]
