"""A compression job's stored result and progress as frozen records, whatever release wrote them. Pure.

Every fact is optional here: a release that did not know a fact wrote no key for it, and a result that ran elsewhere may hold less
than one of this server. A result that cannot be read at all becomes one without candidates; it never breaks a page.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from wavegate_shared.manifest import Comparison

__all__ = ["Candidate", "ItemVerdict", "JobResult", "Progress", "read_progress", "read_result"]

_ORIGINAL = "original"


class ItemVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one budget item; `value` is None where it was not measured, `low` and `high` end its interval."""

    item: str
    met: bool = False
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One tried recipe. `size_bytes` and `p50_ms` are None where there was nothing to measure; losses are in points."""

    recipe: str
    size_bytes: float | None = None
    p50_ms: float | None = None
    metric: float | None = None
    drop_pt: float | None = None
    drop_high_pt: float | None = None
    agreement: float | None = None
    offered: bool | None = None
    pareto: bool | None = None
    reason: str | None = None
    reason_said: dict[str, Any] | None = None

    @property
    def is_original(self) -> bool:
        """Whether this is what the others are compared with."""
        return self.recipe == _ORIGINAL

    @property
    def measured(self) -> bool:
        """Whether it has a place in the charts."""
        return self.size_bytes is not None and self.p50_ms is not None


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the before/after table, as far as it is known."""

    name: str
    unit: str = ""
    before: float | None = None
    after: float | None = None


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a job; `samples` None: not told."""

    chosen: str | None = None
    candidates: tuple[Candidate, ...] = ()
    verdicts: tuple[ItemVerdict, ...] = ()
    measurements: tuple[Measurement, ...] = msgspec.field(default=(), name="comparison")
    samples: int | None = None
    measured_on: str | None = None
    notes: tuple[str, ...] = ()
    notes_said: tuple[dict[str, Any], ...] = ()

    @property
    def said_notes(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Each note with its code and parameters; empty where it has none."""
        return tuple(zip(self.notes, (*self.notes_said, *({} for _ in self.notes)), strict=False))

    @property
    def original(self) -> Candidate | None:
        """The row of the original, or None."""
        return next((row for row in self.candidates if row.is_original), None)

    @property
    def comparison(self) -> tuple[Comparison, ...]:
        """The before/after table, as a version's manifest has it."""
        return tuple(Comparison(name=m.name, unit=m.unit, before=m.before, after=m.after) for m in self.measurements)

    def row(self, recipe: str | None) -> Candidate | None:
        """The row of a recipe, or None."""
        return next((row for row in self.candidates if row.recipe == recipe), None)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The newest step of a job under way; `stage` is empty before the first."""

    stage: str = ""
    candidate: str = ""
    best: str = ""
    detail: str = ""


def read_result(stored: Mapping[str, Any] | None) -> JobResult | None:
    """A job's result; None where there is none yet, an empty one where it cannot be read."""
    if not stored:
        return None
    known = {name: value for name, value in stored.items() if value is not None}
    try:
        return msgspec.convert(known, JobResult)
    except msgspec.ValidationError:
        return JobResult()


def read_progress(stored: Mapping[str, Any] | None) -> Progress:
    """A job's newest step; an empty one where there is none or it cannot be read."""
    known = {name: value for name, value in (stored or {}).items() if value is not None}
    try:
        return msgspec.convert(known, Progress)
    except msgspec.ValidationError:
        return Progress()
