"""The compression job: try recipes on a bundle, measure each against the original, repair, choose, judge, write the result.

    original -> clean base -> candidates (a subprocess each) -> compared on the samples that choose -> race
             -> sensitivity repair -> (still too large or slow: cut, distil, quantise last, the same again)
             -> final race -> judged on samples that no step has seen -> (device round) -> result bundle

`search` tries candidates, `structural` adds distilled students, `verdicts` judges: this is the order of it all.

The original is always a legal answer: when no candidate meets the budget, nothing is written and the verdict says so.
Steps are cached by the hash of all they depend on: a job that was killed or cancelled goes on where it was.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wavegate_server.adapters.files.bundles import Bundle
from wavegate_server.compress.process.step_cache import Cache
from wavegate_server.compress.search.candidates import Search
from wavegate_server.compress.search.device_round import DeviceRound, OnDevice, on_device
from wavegate_server.compress.search.distilling import Teaching
from wavegate_server.compress.search.input_sizes import InputSweep
from wavegate_server.compress.search.judge import Judge, finished
from wavegate_server.compress.search.report import Candidate, Event, JobResult, write_result
from wavegate_server.compress.search.rows import comparison
from wavegate_server.compress.search.smaller_structures import StructuralStep, possible, reach_of_recipes, why_not
from wavegate_server.compress.search.splits import make_splits
from wavegate_server.compress.search.verdicts import judged
from wavegate_server.compress.search.workbench import CALIBRATION, Made, Scored, Workbench
from wavegate_server.core.compress.budget import BudgetItem, slo_words
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Comparison

__all__ = ["Candidate", "Event", "JobResult", "Options", "Progress", "run_job"]

Progress = Callable[[Event], None]
_RESERVE, _MOST_RESERVE_S = 0.25, 180.0
"""Kept for the last race and the verdicts."""
_OF_CLASSES = ("accuracy", "f1", "auc", "agreement")
"""Metrics of class scores; the graph alone does not always tell that its outputs are such."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a job.

    Attributes:
        time_s: when to stop trying; what was found until then is judged.
        cache: where steps are kept; None keeps nothing.
        device_class: hardware class the result is meant for.
        device_round: has the best candidates measured on a device of that class; None: measured on this host only.
        entry: `file.py:function` of the user's own metric, judging instead of the bundle's.
        structural: whether smaller structures are distilled where the bundle has `source` and `train`.
        teaching: temperature and alpha of that.
        calibration: how many samples calibrate static recipes, at most.
    """

    time_s: float = 600.0
    cache: Path | None = None
    device_class: str = ""
    entry: str = ""
    structural: bool = True
    teaching: Teaching = field(default_factory=Teaching)
    device_round: DeviceRound | None = None
    calibration: int = CALIBRATION


def run_job(
    bundle: Bundle,
    budget: Sequence[BudgetItem],
    out: Path,
    progress: Progress = lambda _: None,
    options: Options | None = None,
) -> JobResult:
    """Compress `bundle` within `budget`; writes the result bundle to `out` when a candidate meets every item.

    Raises:
        UsageError: `bundle_invalid` (the original does not run, or gives NaN), `conflict` (`out` is not empty), `invalid`
            (the user's metric raised).
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError("conflict", f"{out} is not empty; name a new directory")
    chosen = options or Options()
    with tempfile.TemporaryDirectory(prefix="wavegate-compress-") as scratch:
        job = _Job(bundle, budget, chosen, Cache(chosen.cache or Path(scratch)), progress)
        result = job.run()
        if result.chosen and result.chosen.path:
            progress(Event("writing the result bundle"))
            write_result(bundle, result, out)
        return result


class _Job:
    def __init__(
        self, bundle: Bundle, budget: Sequence[BudgetItem], options: Options, cache: Cache, progress: Progress
    ) -> None:
        self._bundle, self._budget, self._options, self._progress = bundle, budget, options, progress
        self._ends = time.monotonic() + options.time_s
        self._started = time.monotonic()
        self._reserve_s = 0.0
        self._splits = make_splits(bundle)
        self._bench = Workbench(bundle, self._splits, cache, self._left_s, calibration=options.calibration)
        self._notes: list[str] = [self._splits.words]
        self._search: Search | None = None

    def run(self) -> JobResult:
        """The whole job."""
        self._say("measuring the original")
        original = self._bench.original()
        before = self._bench.score(original, self._splits.choose)
        if not before.score.finite:
            raise UsageError("bundle_invalid", "the original gives outputs that are not finite (NaN or infinite)")
        judge = Judge(self._bench, self._budget, original, self._options.entry)
        search, base = self._searched(judge, original, before)
        self._reserve_s = 0.0
        search.last_race()
        candidates, winner = judged(search, self._options.entry)
        ended = OnDevice(list(candidates), winner, judge.original(search.latency))
        if self._options.device_round is not None:
            tell = self._say
            ended = on_device(self._options.device_round, self._bundle, original, ended, self._budget, tell)
        first, candidates, winner = ended.original, ended.candidates, ended.winner
        table = ended.comparison
        if table is None:
            table = _table(judge, winner, search.latency["original"].cpu_ms) if winner else []
        legal = finished(first, winner, self._budget)
        reported = winner or judge.closest(candidates) or first
        if reported.measured:
            self._notes += slo_words(self._bundle.spec.slo, reported.measured, ended.place)
        return JobResult(
            candidates=[first, *candidates],
            chosen=winner or (first if legal else None),
            judged=reported,
            comparison=table,
            samples=self._splits.report.samples,
            notes=ended.notes + self._notes + search.notes + (base.notes if base else []) + judge.notes,
            measured_on=ended.place,
            device=ended.figures.as_json() if ended.figures else None,
            device_class=self._options.device_class,
            seconds=time.monotonic() - self._started,
            cached_steps=self._bench.cache.hits,
        )

    def _left_s(self) -> float:
        return self._ends - self._reserve_s - time.monotonic()

    def _say(self, stage: str, candidate: str = "", detail: str = "") -> None:
        self._progress(Event(stage, candidate, self._search.best if self._search else "", detail))

    def _searched(self, judge: Judge, original: Made, before: Scored) -> tuple[Search, Made]:
        """Every candidate there is, repaired ones and students included; none where the model is quantised already."""
        from wavegate_server.compress.onnx_graph.inspect import inspect_file

        self._say("cleaning the graph")
        base = self._bench.base(original)
        found = inspect_file(base.path)
        spec = self._bundle.spec
        if spec.family and spec.family != found.family and not found.quantised:
            self._notes.append(Sentence("note.family", said=spec.family, seen=found.family))
        self._notes += [note for note in found.notes if note not in self._notes]
        self._reserve_s = min(_RESERVE * self._options.time_s, _MOST_RESERVE_S)
        classes = found.head == "classification" or self._bundle.spec.metric.name in _OF_CLASSES
        search = Search(self._bench, judge, self._budget, original, before, classes=classes, say=self._say)
        self._search = search
        able = self._options.structural and possible(spec) and not found.quantised
        search.try_recipes(found.recipes, base, structure_follows=able and not reach_of_recipes(search))
        if search.trials and reach_of_recipes(search):
            InputSweep(search, self._left_s).run()
        if able:
            step = StructuralStep(search, found.recipes, self._options.teaching, self._left_s)
            if step.wanted():
                step.run()
        elif self._options.structural and not found.quantised and not any(map(search.fits, search.trials)):
            search.notes.append(why_not(spec))
        return search, base


def _table(judge: Judge, winner: Candidate, cpu_before: float) -> list[Comparison]:
    peak_before = judge.before.score.peak_rss_mb
    return comparison(winner.measured, cpu_ms=winner.cpu_ms, cpu_before=cpu_before, peak_before=peak_before)
