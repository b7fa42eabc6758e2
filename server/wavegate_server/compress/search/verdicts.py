"""The verdicts of a job: which candidates are judged, in which order, and on how many of the samples that report.

The one that looks best is judged first, on all samples; each further one at half the error level, so that trying again does
not become a way to pass. What misses size or speed whatever its metric is, and what comes behind the answer, is judged on a
few hundred samples: its row is for the reader, and cannot become an answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from wavegate_server.compress.search.candidates import Search, Trial
from wavegate_server.compress.search.judge import FIRST_LEVEL, Judge
from wavegate_server.compress.search.report import Candidate
from wavegate_server.compress.search.rows import behind
from wavegate_server.compress.search.splits import Split
from wavegate_server.core.sentences import Sentence

__all__ = ["Verdicts", "judged", "judging_order"]

FEW = 300
"""Samples for a row that cannot win."""
_IN_FULL = 2
"""Candidates within the budget that are judged on all samples: the answer and the next one."""


class Verdicts:
    """Judges the trials of one search. Attributes: winner, the answer; None where nothing held."""

    def __init__(self, search: Search, entry: str) -> None:
        """`entry`: the user's own metric, or empty."""
        self._search, self._entry = search, entry
        self._quick: Judge | None = None
        self._few: list[str] = []
        self.winner: Candidate | None = None

    def rows(self) -> list[Candidate]:
        """A row for each trial, in the order tried."""
        search = self._search
        runnable = [(trial, search.fits(trial)) for trial in search.trials if trial.runs]
        order = judging_order(runnable, allowed=search.allowed(), goal=search.goal(), cost=search.cost)
        done: dict[str, Candidate] = {}
        for number, (trial, fits) in enumerate(order):
            search.say("judging on samples not used before", trial.name, "")
            done[trial.name] = self._row(trial, number, fits=fits)
            if self.winner is None and fits and done[trial.name].offered:
                self.winner = done[trial.name]
        closest = search.judge.closest(list(done.values())) if self.winner is None else None
        if closest is not None and closest.recipe in self._few:  # the report's verdicts are this row's
            trial = next(trial for trial, _ in order if trial.name == closest.recipe)
            done[trial.name] = search.judge.candidate(trial.made, search.latency, level=FIRST_LEVEL)
            self._few.remove(trial.name)
        if self._few:
            search.notes.append(Sentence("note.few_samples", few=FEW, total=self._all.samples, names=list(self._few)))
        rows = [done.get(trial.name) or Candidate.failed(trial.name, trial.reason) for trial in search.trials]
        return [behind(row, self.winner) for row in rows]

    @property
    def _all(self) -> Split:
        return self._search.bench.splits.report

    def _row(self, trial: Trial, number: int, *, fits: bool) -> Candidate:
        search, winner = self._search, self.winner
        in_full = self._all.samples <= 2 * FEW or (fits and (winner is None or number < _IN_FULL))
        level = FIRST_LEVEL if winner else 1 - (1 - FIRST_LEVEL) / 2**number
        if in_full:
            return search.judge.candidate(trial.made, search.latency, level=level)
        self._few.append(trial.name)
        row = self._quick_judge().candidate(trial.made, search.latency, level=level)
        if fits and winner is not None and row.measured is not None:
            return replace(row, offered=False, reason=Sentence("candidate.behind_few", name=winner.recipe, few=FEW))
        return row

    def _quick_judge(self) -> Judge:
        if self._quick is None:
            search, whole = self._search, self._all
            every = list(range(whole.samples)) if whole.rows is None else whole.rows
            rows = [every[at * len(every) // FEW] for at in range(FEW)]  # spread out: files may be sorted by label
            split = replace(whole, rows=rows, samples=len(rows))
            self._quick = Judge(search.bench, search.budget, search.original, self._entry, split=split)
        return self._quick


def judging_order(
    runnable: Sequence[tuple[Trial, bool]], *, allowed: float, goal: float, cost: Callable[[Trial], float]
) -> list[tuple[Trial, bool]]:
    """Candidates, each with whether it fits: the cheapest first of those that kept to the goal, what can hardly pass last."""
    return sorted(runnable, key=lambda p: (not p[1], p[0].drop > allowed, p[0].drop > goal, cost(p[0])))


def judged(search: Search, entry: str) -> tuple[Sequence[Candidate], Candidate | None]:
    """The rows of all trials and the answer, where there is one."""
    verdicts = Verdicts(search, entry)
    return verdicts.rows(), verdicts.winner
