"""What the command line prints: JSON for programs, tables for people, errors as one line what and one line what to do.

Results go to standard output, errors and progress to standard error. Exit codes: see `EXIT_CODES`.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wavegate_server.core.advice import ADVICE, Refused
from wavegate_shared.errors import CODES, WavegateError

__all__ = [
    "ExitCode",
    "JsonFlag",
    "ago",
    "figure",
    "lines",
    "megabytes",
    "print_error",
    "print_json",
    "table",
]

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON; errors as a JSON problem on stderr.")]
_PIPE_WIDTH = 200
"""Columns where the output is no terminal, so that a table is not cut for a program that reads it."""


class ExitCode(IntEnum):
    """What a command ends with."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_MET = 3


def print_json(data: Any) -> None:
    """The machine's form of a result."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_error(error: WavegateError | Refused, *, as_json: bool) -> None:
    """One line what happened, one line what to do; or the problem as JSON."""
    problem = error.problem if isinstance(error, Refused) else _problem(error)
    if as_json:
        print(json.dumps(problem, ensure_ascii=False), file=sys.stderr)
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[red]error:[/red] {escape(problem['detail'])} [dim]({problem['code']})[/dim]")
    if problem.get("action"):
        console.print(f"       {escape(problem['action'])}")


def lines(*texts: str) -> None:
    """Plain lines for people; text from outside is never read as markup."""
    console = _console()
    for text in texts:
        console.print(escape(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table, or the sentence `empty` when there are no rows. Columns that end in a number sign are right-aligned."""
    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        grid.add_column(name.removesuffix("#"), justify="right" if name.endswith("#") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape("-" if cell is None or cell == "" else str(cell)) for cell in row))
    if grid.row_count:
        _console().print(grid)
    else:
        lines(empty)


def ago(at: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 time was, in one unit."""
    if at is None:
        return "never"
    seconds = max(0.0, (now - datetime.fromisoformat(at)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def figure(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A figure with its unit, or `-` where nothing was measured; a share is shown in per cent."""
    if value is None:
        return "-"
    if unit == "share":
        return f"{value:.2%}"
    return f"{value:.{digits}g} {unit}".strip() if abs(value) < 1000 else f"{value:,.0f} {unit}".strip()


def megabytes(size_bytes: int) -> str:
    """A size in MB (10^6 bytes)."""
    return f"{size_bytes / 1e6:.2f} MB"


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def _problem(error: WavegateError) -> dict[str, Any]:
    return {
        "type": f"urn:wavegate:error:{error.code}",
        "title": CODES[error.code].meaning,
        "detail": error.detail,
        "code": error.code,
        "retry": error.retry,
        "action": ADVICE.get(error.code, ""),
    }
