"""What `wavegate compress` shows: a live table while it runs, then candidates, verdicts and the before/after table.

Everything is made from the result's JSON form, so a job here and a job on the server look the same.
"""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from wavegate_server.cli.output import lines, table
from wavegate_shared.manifest import Comparison

__all__ = ["Display", "print_comparison", "print_result"]

_ROWS = 12


class Display:
    """A live table on standard error: each candidate with its stage, the best so far, time used of the limit.

    Quiet where there is no terminal, or when `quiet`. `on` says whether anything is shown.
    """

    def __init__(self, title: str, limit_s: float, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self.on = console.is_terminal and not quiet
        self._title, self._limit_s = title, limit_s
        self._stages: dict[str, tuple[str, float]] = {}
        self._now, self._detail, self._best = "starting", "", ""
        self._began = time.monotonic()
        self._live = Live(get_renderable=self._picture, console=console, transient=True, refresh_per_second=4)

    def __enter__(self) -> "Display":
        if self.on:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()

    def pause(self) -> None:
        """Take the table away, so that something else can be printed or asked."""
        if self._live.is_started:
            self._live.stop()

    def go_on(self) -> None:
        """Show the table again."""
        if self.on and not self._live.is_started:
            self._live.start()

    def tell(self, stage: str, candidate: str = "", best: str = "", detail: str = "") -> None:
        """One progress event."""
        self._now, self._detail = (f"{candidate}: {stage}" if candidate else stage), detail
        self._best = best or self._best
        if candidate:
            self._stages.pop(candidate, None)
            self._stages[candidate] = (stage, time.monotonic())

    def used(self, seconds: float) -> None:
        """How long the job has run, as its server says."""
        self._began = time.monotonic() - seconds

    def _picture(self) -> Group:
        elapsed = time.monotonic() - self._began
        head = Text.assemble(
            (self._title, "bold"), f"  {_clock(elapsed)} of {_clock(self._limit_s)}  best so far: {self._best or '-'}"
        )
        grid = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in ("candidate", "stage", "since"):
            grid.add_column(name, justify="right" if name == "since" else "left")
        for name, (stage, at) in list(self._stages.items())[-_ROWS:]:
            mark = "[bold]" if name == self._best else ""
            grid.add_row(f"{mark}{escape(name)}", escape(stage), _clock(time.monotonic() - at))
        now = Text(f"{self._now}{f' · {self._detail}' if self._detail else ''}", "dim")
        return Group(head, *([grid] if self._stages else []), now)


def print_result(result: dict[str, Any]) -> None:
    """Print a finished job's result: what was measured, the candidates, the verdict on each budget item, before and after."""
    place = str(result["measured_on"])
    if result["for"] and place == "host only":
        place += f", not on a device of class {result['for']}"
    threads = "one thread" if result["threads"] == 1 else f"{result['threads']} threads"
    measured = "measured:" if place.startswith("host only") else "measured on"
    lines(f"{result['samples']} paired samples, {threads}, {measured} {place}; {result['seconds']:.0f} s")
    lines(*(f"  {note}" for note in result["notes"]))
    original = next((row for row in result["candidates"] if row["recipe"] == "original"), None)
    columns = ("recipe", "", "size MB#", "p50 ms#", "speed#", "metric#", "drop#", "at most#", "agreement#", "verdict")
    unit = (result.get("metric") or {"unit": "share"})["unit"]
    rows = [_row(row, original, unit, chosen=row["recipe"] == result["chosen"]) for row in result["candidates"]]
    table(columns, rows, empty="no recipe fits this model")
    lines("* no other candidate is better in size, latency and drop at once")
    _print_verdicts(result["verdicts"], result["words"])
    print_comparison([Comparison(**row) for row in result["comparison"]])
    if result["chosen"] is None:
        lines("budget not met: the original stays the best answer")
    elif result["chosen"] == "original":
        lines("the original meets the budget as it is, and nothing better was found: nothing was written")


def print_comparison(rows: Sequence[Comparison]) -> None:
    """Print the before/after table with the change of each row."""
    cells = [(f"{row.name} ({row.unit})", _figure(row.before), _figure(row.after), _change(row)) for row in rows]
    if cells:
        table(("", "before#", "after#", "change#"), cells, empty="")


def _print_verdicts(verdicts: Sequence[dict[str, Any]], words: Sequence[str]) -> None:
    rows = []
    for verdict in verdicts:
        low, high = verdict["low"], verdict["high"]
        item = verdict["item"]
        interval = "" if low is None or high is None else f"{_amount(item, low)} to {_amount(item, high)}"
        rows.append((item, "met" if verdict["met"] else "NOT met", _amount(item, verdict["value"]), interval))
    table(("budget item", "verdict", "measured#", "interval#"), rows, empty="no budget item")
    lines(*(f"  {sentence}" for sentence in words if not sentence.endswith(": met")))


def _amount(item: str, value: float) -> str:
    """A verdict's value in the unit of its budget item."""
    if item.endswith("%"):
        return f"{100 * value:+.1f} %"
    if item.endswith("pt"):
        return f"{100 * value:.2f} pt"
    if item.endswith("B") and item.startswith(("size", "download")):
        return f"{value / 1e6:.2f} MB"
    return f"{value:.2f}x" if item.endswith("x") else f"{value:.4g}"


def _row(row: dict[str, Any], original: dict[str, Any] | None, unit: str, *, chosen: bool) -> list[str]:
    star = "*" if row["pareto"] else ""
    if row["size_bytes"] is None:
        return [row["recipe"], star, "", "", "", "", "", "", "", row["reason"]]
    verdict = row["reason"] or "meets the budget"
    if chosen:
        verdict = f"chosen; {row['reason']}" if row["reason"] else "chosen"
    before = row.get("p50_before_ms") or (original["p50_ms"] if original else 0.0)  # beside it, on the same machine
    speed = before / row["p50_ms"] if row["p50_ms"] else 0.0
    figures = [f"{row['size_bytes'] / 1e6:.2f}", f"{row['p50_ms']:.2f}", f"{speed:.2f}x", f"{row['metric']:.4f}"]
    points = [row[name] for name in ("drop_pt", "drop_high_pt")]
    drops = [f"{value:.2f} pt" if unit == "share" else f"{value / 100:.4g} {unit}" for value in points]
    return [row["recipe"], star, *figures, *drops, f"{row['agreement']:.4f}", verdict]


def _change(row: Comparison) -> str:
    if row.before is None or row.after is None:
        return ""
    if row.unit == "share":
        return f"{(row.after - row.before) * 100:+.2f} pt"
    return f"{(row.after / row.before - 1) * 100:+.1f} %" if row.before else ""


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
