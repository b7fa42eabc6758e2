"""Rows of a job's report: one place makes a verdict's row and the signed table, whether the host or a device measured. Pure.

Not here: measuring (`judge`, `device_round`), which row wins (`verdicts`).
"""

from collections.abc import Sequence
from dataclasses import replace

from wavegate_server.compress.search.report import Candidate
from wavegate_server.core.compress.budget import BudgetItem, Measured, Verdict, judge, words
from wavegate_server.core.sentences import Sentence
from wavegate_shared.manifest import Comparison

__all__ = ["OF_METRIC", "behind", "comparison", "missed_items", "no_gain", "original_row", "slower", "with_verdicts"]

OF_METRIC = ("drop", "error_change", "metric")
"""Kinds of budget items that the metric decides; a device measures all others itself."""


def with_verdicts(row: Candidate, measured: Measured, budget: Sequence[BudgetItem], *, cpu_ms: float) -> Candidate:
    """The row with these figures, and the verdicts and words that follow from them; whether it is offered is not decided."""
    verdicts = judge(budget, measured)
    sentences = [words(verdict, item, measured) for verdict, item in zip(verdicts, budget, strict=True)]
    return replace(row, measured=measured, cpu_ms=cpu_ms, verdicts=verdicts, words=sentences)


def original_row(row: Candidate, measured: Measured, budget: Sequence[BudgetItem], *, cpu_ms: float) -> Candidate:
    """The original's own row: it is an answer where it meets the budget by itself."""
    judged = with_verdicts(row, measured, budget, cpu_ms=cpu_ms)
    missed = missed_items(judged.verdicts)
    reason = Sentence("candidate.original_misses", names=missed) if missed else Sentence("candidate.original_meets")
    return replace(judged, offered=not missed, reason=reason)


def missed_items(verdicts: Sequence[Verdict]) -> list[str]:
    """Budget items that are not met."""
    return [verdict.item for verdict in verdicts if not verdict.met]


def no_gain(measured: Measured) -> bool:
    """Whether a candidate is neither smaller nor faster than the original."""
    return measured.p50_ms > measured.p50_before and measured.size_bytes >= measured.size_before


def slower(measured: Measured) -> str:
    """The factor of a candidate that is slower than the original, as `0.83`; empty where it is not."""
    return f"{measured.p50_before / measured.p50_ms:.2f}" if measured.p50_ms > measured.p50_before else ""


def behind(row: Candidate, winner: Candidate | None) -> Candidate:
    """The row as the report shows it: of several offers one is chosen, and the others say which one they are behind."""
    if winner is None or row.recipe == winner.recipe or row.reason:
        return row
    return row.because(Sentence("candidate.behind", name=winner.recipe))


def comparison(
    measured: Measured | None,
    *,
    cpu_ms: float,
    cpu_before: float | None,
    peak_before: float | None,
    where: str = "",
    peak_where: str = "",
) -> list[Comparison]:
    """The five rows that go signed into the manifest; none without figures.

    Args:
        measured: the answer's figures beside the original's.
        cpu_ms: of the answer, an inference.
        cpu_before: of the original.
        peak_before: the original's peak memory in MB.
        where: the device that measured times; empty for the host.
        peak_where: the same for memory.
    """
    if measured is None:
        return []
    metric = measured.metric
    return [
        Comparison(name="size", unit="MB", before=measured.size_before / 1e6, after=measured.size_bytes / 1e6),
        Comparison(name="latency p50", unit="ms", before=measured.p50_before, after=measured.p50_ms, where=where),
        Comparison(name="peak memory", unit="MB", before=peak_before, after=measured.peak_mb, where=peak_where),
        Comparison(name="CPU time per inference", unit="ms", before=cpu_before, after=cpu_ms, where=where),
        Comparison(name=metric.name, unit=metric.unit, before=measured.value_before, after=measured.value),
    ]
