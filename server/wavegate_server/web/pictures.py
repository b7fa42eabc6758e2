"""Small pictures as data for the templates: donut, sparkline, stacked bar, interval. Pure; coordinates only, no markup.

Pictures carry no colour: templates give each part a class and the style sheet its colour, so themes need no redraw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Arc", "Change", "Interval", "Segment", "changes", "donut", "interval", "sparkline", "stacked"]

_GAP = 0.8
"""Space between two arcs, in per cent of the ring."""

_LEAST_REACH, _MOST_REACH = 1.0, 2.0
"""The scale of changes spans at least a halving and a doubling, so that a small change is drawn small; more than threefold is cut."""

_THINNEST = 0.8
"""The narrowest bar that can still be seen, in a picture 100 wide."""

_REACH = 40
"""Beyond so many margins an estimate is cut at the edge, or the margin itself could not be seen."""


@dataclass(frozen=True, slots=True)
class Arc:
    """One arc of a ring of circumference 100: `dash` long, starting at `offset` (as stroke-dashoffset wants it)."""

    name: str
    count: int
    dash: float
    offset: float


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a bar 100 wide."""

    name: str
    count: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Change:
    """A bar in a picture 100 wide, from no change in the middle: to the left for less, to the right for more."""

    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Where an estimate with its radius lies beside zero and the margin; positions in a picture 100 wide.

    `low` and `high` bound the interval, cut at the picture's edge.
    """

    zero: float
    margin: float
    low: float
    mean: float
    high: float


def donut(counts: Mapping[str, int]) -> tuple[Arc, ...]:
    """The arcs of every count above zero, clockwise from the top."""
    total = sum(counts.values())
    present = [(name, n) for name, n in counts.items() if n > 0]
    arcs: list[Arc] = []
    at = 0.0
    for name, n in present:
        share = 100 * n / total
        gap = _GAP if len(present) > 1 else 0.0
        arcs.append(Arc(name, n, round(max(share - gap, 0.4), 3), round(25 - at, 3)))
        at += share
    return tuple(arcs)


def stacked(counts: Mapping[str, int]) -> tuple[Segment, ...]:
    """The segments of every count above zero, left to right."""
    total = sum(counts.values())
    segments: list[Segment] = []
    at = 0.0
    for name, n in counts.items():
        if n > 0:
            segments.append(Segment(name, n, round(at, 3), round(100 * n / total, 3)))
            at += 100 * n / total
    return tuple(segments)


def changes(relative: Sequence[float | None]) -> tuple[Change | None, ...]:
    """A bar for each change of one table, all on one scale; None where there is nothing to draw.

    Args:
        relative: after / before - 1; None: not known.
    """
    largest = max((abs(value) for value in relative if value is not None), default=0.0)
    reach = min(max(largest, _LEAST_REACH), _MOST_REACH)
    return tuple(None if value is None else _change(value / reach) for value in relative)


def _change(share: float) -> Change:
    width = max(50 * min(abs(share), 1.0), _THINNEST)
    if abs(share) * 50 < _THINNEST / 2:
        return Change(50 - _THINNEST / 2, _THINNEST)
    return Change(round(50.0 if share > 0 else 50 - width, 2), round(width, 2))


def sparkline(values: Sequence[float | None], *, width: int = 96, height: int = 24) -> str:
    """The `d` of an SVG path; a gap where nothing was measured; empty for nothing at all.

    The scale spans at least half of the highest value, so that ordinary noise stays small.
    """
    known = [value for value in values if value is not None]
    if not known or len(values) < 2:
        return ""
    top = max(known) or 1.0
    bottom = min(min(known), 0.5 * top)
    parts: list[str] = []
    pen_down = False
    for i, value in enumerate(values):
        if value is None:
            pen_down = False
            continue
        x, y = i * width / (len(values) - 1), height - 2 - (height - 4) * (value - bottom) / (top - bottom)
        parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        if not pen_down and (i + 1 == len(values) or values[i + 1] is None):
            parts.append("h0.1")  # a single point still shows, as a dot
        pen_down = True
    return "".join(parts)


def interval(mean: float, radius: float, margin: float) -> Interval:
    """Place an estimate: the scale holds zero, the margin and the interval, up to `_REACH` margins."""
    reach = max(2 * margin, min(abs(mean) + radius, _REACH * margin)) * 1.08 or 1.0

    def place(value: float) -> float:
        return round(50 + 50 * max(-1.0, min(1.0, value / reach)), 2)

    return Interval(place(0), place(margin), place(mean - radius), place(mean), place(mean + radius))
