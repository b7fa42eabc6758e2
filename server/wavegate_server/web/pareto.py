"""The Pareto picture of a compression job as data for the templates: two charts over size, one of latency, one of the loss.

Pure; coordinates only, no markup and no colour. Each point has a number that its row in the table carries too, and a shape that
says what it is, so that nothing rests on colour. Points beyond the scale are drawn at its edge and marked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wavegate_server.web.job_result import Candidate, JobResult

__all__ = ["HEIGHT", "WIDTH", "Chart", "Point", "Tick", "charts", "numbered"]

WIDTH, HEIGHT = 400.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 14.0, 42.0
_REACH = 1.6
"""Beyond so many times the original's latency, or the allowed loss, a point is drawn at the edge: one bad try would else press
all others together."""
_NEAR = 9.0
_ABOVE = ("missed", "good", "original", "chosen")
"""What is drawn over what."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate. `kind`: original, chosen, good (meets the budget) or missed; `low` and `high` end its whisker, where it has one.

    Attributes:
        front: on the front of all three figures: none is better in each of them.
        beyond: drawn at the edge because it lies outside.
        label_x, label_y: where its number goes.
    """

    number: int
    name: str
    kind: str
    x: float
    y: float
    front: bool
    beyond: bool
    label_x: float
    label_y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. `line` is the `d` of the front's path; `limit` is the height of the allowed loss."""

    points: tuple[Point, ...]
    line: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    name: str
    kind: str
    front: bool
    size: float
    latency: float
    drop: float
    drop_high: float


def numbered(candidates: Sequence[Candidate]) -> list[tuple[int | None, Candidate]]:
    """Every candidate with its number in the charts; None for those that were never measured."""
    rows: list[tuple[int | None, Candidate]] = []
    at = 0
    for row in candidates:
        at += row.measured
        rows.append((at if row.measured else None, row))
    return rows


def charts(result: JobResult, allowed_drop: float | None) -> tuple[Chart, Chart] | None:
    """Size by latency, and size by loss (in points of the metric); None where fewer than two candidates were measured.

    Args:
        result: a job's result.
        allowed_drop: loss that the budget allows, in the metric's unit.
    """
    rows = [_row(number, row, result.chosen) for number, row in numbered(result.candidates) if number]
    if len(rows) < 2:
        return None
    most_size = max(row.size for row in rows) * 1.08 or 1.0
    original = next((row for row in rows if row.kind == "original" or row.name == "original"), rows[0])
    most_latency = min(max(row.latency for row in rows), _REACH * original.latency) * 1.08 or 1.0
    kept = [row for row in rows if row.kind != "missed"]
    kept = kept if len(kept) > 1 else rows  # nothing meets the budget: the front of all there is
    fast = _chart(rows, kept, most_size, 0.0, most_latency, "latency")
    allowed = None if allowed_drop is None else 100 * allowed_drop
    highest = max((row.drop_high for row in rows), default=0.0)
    most_drop = (min(highest, _REACH * allowed) if allowed else highest) or 1.0
    most_drop = max(most_drop, (allowed or 0.0) * 1.15, 0.1)
    least_drop = min(0.0, *(row.drop for row in rows)) * 1.08
    lossy = _chart(rows, kept, most_size, least_drop, most_drop * 1.08, "drop", limit=allowed)
    return fast, lossy


def _row(number: int, row: Candidate, chosen: str | None) -> _Row:
    if row.recipe == chosen:
        kind = "chosen"
    elif row.is_original:
        kind = "original"
    else:
        kind = "good" if row.offered else "missed"
    drop = row.drop_pt or 0.0
    high = drop if row.drop_high_pt is None else row.drop_high_pt
    size, latency = row.size_bytes or 0.0, row.p50_ms or 0.0
    return _Row(number, row.recipe, kind, bool(row.pareto), size / 1e6, latency, drop, max(drop, high))


def _chart(
    rows: Sequence[_Row],
    kept: Sequence[_Row],
    most_x: float,
    least_y: float,
    most_y: float,
    field: str,
    *,
    limit: float | None = None,
) -> Chart:
    def across(value: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * min(value / most_x, 1.0), 1)

    def up(value: float) -> float:
        share = (min(value, most_y) - least_y) / (most_y - least_y)
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share, 1)

    placed: list[Point] = []
    for row in rows:
        value = row.latency if field == "latency" else row.drop
        x, y = across(row.size), up(value)
        whisker = (up(row.drop), up(row.drop_high)) if field == "drop" and row.drop_high > row.drop else (None, None)
        label_x, label_y = _free(x, y, placed)
        placed.append(
            Point(row.number, row.name, row.kind, x, y, row.front, value > most_y, label_x, label_y, *whisker)
        )
    corners = [(across(row.size), up(row.latency if field == "latency" else row.drop)) for row in _front(kept, field)]
    return Chart(
        tuple(sorted(placed, key=lambda point: _ABOVE.index(point.kind))),
        _staircase(corners),
        tuple(Tick(across(value), text) for value, text in _ticks(0.0, most_x)),
        tuple(Tick(up(value), text) for value, text in _ticks(least_y, most_y)),
        None if limit is None or limit > most_y else up(limit),
    )


def _free(x: float, y: float, placed: Sequence[Point]) -> tuple[float, float]:
    """A place for a number beside its point that no other number has taken."""
    for dx, dy in ((9, -7), (9, 13), (-9, -7), (-9, 13), (16, 3), (-16, 3), (0, -14), (0, 20), (24, -7), (24, 13)):
        at = (min(max(x + dx, _LEFT + 4), WIDTH - 6), min(max(y + dy, _TOP), HEIGHT - _BOTTOM - 3))
        if all(math.dist(at, (point.label_x, point.label_y)) > _NEAR for point in placed) and all(
            math.dist(at, (point.x, point.y)) > _NEAR for point in placed
        ):
            return round(at[0], 1), round(at[1], 1)
    return round(x + 9, 1), round(y - 7, 1)


def _front(rows: Sequence[_Row], field: str) -> list[_Row]:
    """The rows that no other beats in size and `field` at once, smallest first."""
    best, found = math.inf, []
    for row in sorted(rows, key=lambda row: (row.size, getattr(row, field))):
        value = getattr(row, field)
        if value < best:
            best = value
            found.append(row)
    return found


def _staircase(corners: Sequence[tuple[float, float]]) -> str:
    """The edge of what was reached: from the top down to the smallest, then to the right."""
    if not corners:
        return ""
    parts = [f"M{corners[0][0]:g} {_TOP:g}V{corners[0][1]:g}"]
    parts += [f"H{x:g}V{y:g}" for x, y in corners[1:]]
    return "".join([*parts, f"H{WIDTH - _RIGHT:g}"])


def _ticks(least: float, most: float) -> list[tuple[float, str]]:
    """Three to six round values between the ends."""
    raw = (most - least) / 4
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(base * factor for factor in (1, 2, 5, 10) if base * factor >= raw)
    first = math.ceil(least / step)
    digits = max(0, -math.floor(math.log10(step)))
    values = [n * step for n in range(first, math.floor(most / step) + 1)]
    return [(value, f"{value:.{digits}f}".replace("-", "−")) for value in values]
