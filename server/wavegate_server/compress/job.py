"""The compression job: try recipes on a bundle, measure each against the original, repair, choose, judge, write the result.

    original -> clean base -> candidates (a subprocess each) -> compared on the samples that choose -> race
             -> sensitivity repair -> final race -> judged on samples that no step has seen -> result bundle

The original is always a legal answer: when no candidate meets the budget, nothing is written and the verdict says so.
Steps are cached by the hash of all they depend on: a job that was killed or cancelled goes on where it was.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wavegate_server.adapters.bundles import Bundle
from wavegate_server.compress.cache import Cache
from wavegate_server.compress.judge import FIRST_LEVEL, Judge, finished
from wavegate_server.compress.measure import Latency, race
from wavegate_server.compress.recipes import named
from wavegate_server.compress.report import Candidate, Event, JobResult, comparison, write_result
from wavegate_server.compress.splits import make_splits
from wavegate_server.compress.trial import Made, Scored, Workbench, against
from wavegate_server.core.budget import BudgetItem, allowed_drop
from wavegate_shared.errors import UsageError

__all__ = ["Candidate", "Event", "JobResult", "Options", "Progress", "run_job"]

Progress = Callable[[Event], None]
_RESERVE = 0.3
_RACE_BYTES = 1 << 30
_SCAN_SECONDS = 120.0
_KEEP_FLOAT = (1, 2, 3, 5, 8)
_DEFAULT_GOAL = 0.01


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a job.

    Attributes:
        time_s: when to stop trying; what was found until then is judged.
        cache: where steps are kept; None keeps nothing.
        device_class: hardware class the result is meant for, recorded only: measured on this host.
        entry: `file.py:function` of the user's own metric, judging instead of the bundle's.
    """

    time_s: float = 600.0
    cache: Path | None = None
    device_class: str = ""
    entry: str = ""


@dataclass(slots=True)
class _Trial:
    """A candidate on its way. `drop` is its loss on the samples that choose."""

    name: str
    recipe: str
    made: Made | None = None
    drop: float = float("inf")
    agreement: float = 0.0
    reason: str = ""


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
        self._bench = Workbench(bundle, self._splits, cache, lambda: self._ends - self._reserve_s - time.monotonic())
        self._latency: dict[str, Latency] = {}
        self._notes: list[str] = [self._splits.words]
        self._best = ""

    def run(self) -> JobResult:
        """The whole job."""
        self._say("measuring the original")
        original = self._bench.original()
        before = self._bench.score(original, self._splits.choose)
        if not before.score.finite:
            raise UsageError("bundle_invalid", "the original gives outputs that are not finite (NaN or infinite)")
        judge = Judge(self._bench, self._budget, original, self._options.entry)
        trials, base = self._tried(judge, original, before)
        self._reserve_s = 0.0
        self._raced(original, trials, rounds=12)
        candidates, winner = self._judged(judge, trials)
        first = judge.original(self._latency)
        table = comparison(judge, winner, self._latency) if winner else []
        notes = self._notes + (base.notes if base else []) + judge.notes
        legal = finished(first, winner, self._budget)
        return JobResult(
            candidates=[first, *candidates],
            chosen=winner or (first if legal else None),
            judged=winner or judge.closest(candidates) or first,
            comparison=table,
            samples=self._splits.report.samples,
            notes=notes,
            device_class=self._options.device_class,
            seconds=time.monotonic() - self._started,
            cached_steps=self._bench.cache.hits,
        )

    def _say(self, stage: str, candidate: str = "") -> None:
        self._progress(Event(stage, candidate, self._best))

    def _tried(self, judge: Judge, original: Made, before: Scored) -> tuple[list[_Trial], Made | None]:
        """Every candidate there is, repaired ones included; none where the model is quantised already."""
        from wavegate_server.compress.inspect import inspect_file

        self._say("cleaning the graph")
        base = self._bench.base(original)
        found = inspect_file(base.path)
        family = self._bundle.spec.family
        if family and family != found.family and not found.quantised:
            self._notes.append(
                f"the bundle says {family}, the graph looks like {found.family}: recipes follow the graph"
            )
        self._notes += [note for note in found.notes if note not in self._notes]
        self._reserve_s = _RESERVE * self._options.time_s
        classes = found.head == "classification"
        trials = [self._try(planned.recipe, base, before, classes=classes) for planned in found.recipes]
        if any(trial.made for trial in trials):
            self._raced(original, trials, rounds=4)
            trials += self._repair(judge, trials, base, before, classes=classes)
        return trials, base

    def _try(
        self, recipe: str, base: Made, before: Scored, *, classes: bool, kept: Sequence[str] = (), name: str = ""
    ) -> _Trial:
        trial = _Trial(name or recipe, recipe)
        try:
            self._say("quantising", trial.name)
            made = self._bench.make(recipe, base, list(kept), trial.name)
            self._say("comparing with the original", trial.name)
            after = self._bench.score(made, self._splits.choose)
        except UsageError as error:
            trial.reason = error.detail
            return trial
        trial.made = made
        if not after.score.finite:
            trial.reason = "an output is not finite"
            return trial
        beside = against(before, after, classes=classes)
        trial.agreement = beside.agreement
        trial.drop = self._drop(
            before, after, beside.agreement if classes else 1 - beside.error, beside.mean_difference
        )
        return trial

    def _drop(self, before: Scored, after: Scored, agreement: float, difference: float) -> float:
        """Loss on the samples that choose; without labels, the most it can be: every changed answer was right before."""
        metric = self._bundle.spec.metric
        if self._splits.choose.labelled:
            sign = 1 if metric.direction == "up" else -1
            return sign * (before.score.value - after.score.value)
        return 1 - agreement if metric.direction == "up" else difference

    def _raced(self, original: Made, trials: Sequence[_Trial], *, rounds: int) -> None:
        failed = self._race(original, [t.made for t in trials if t.made and not t.reason], rounds=rounds)
        for trial in trials:
            trial.reason = trial.reason or failed.get(trial.name, "")

    def _race(self, original: Made, made: Sequence[Made], *, rounds: int) -> dict[str, str]:
        """Time the original and candidates side by side in one process; gives the reasons of those that could not run.

        Models too large to be loaded together, or one that brings the process down, race in pairs with the original; their
        times are then scaled to the first pair's original.
        """
        self._say("racing the candidates against the original")
        paths = {each.name: each.path for each in made}
        together = sum(path.stat().st_size for path in [original.path, *paths.values()]) <= _RACE_BYTES
        if together:
            with suppress(UsageError):
                self._latency.update(self._timed({"original": original.path, **paths}, rounds))
                return {}
        failed: dict[str, str] = {}
        reference = None if paths else self._timed({"original": original.path}, rounds)["original"]
        for name, path in paths.items():
            try:
                pair = self._timed({"original": original.path, name: path}, rounds)
            except UsageError as error:
                failed[name] = error.detail
                continue
            reference = reference or pair["original"]
            self._latency[name] = pair[name].scaled(reference.p50_ms / pair["original"].p50_ms)
        if reference is None:
            reference = self._timed({"original": original.path}, rounds)["original"]
        self._latency["original"] = reference
        return failed

    def _timed(self, models: dict[str, Path], rounds: int) -> dict[str, Latency]:
        report, bundle = self._splits.report, self._bundle
        return race(models, report.file, bundle.spec, bundle.directory, rounds=rounds)

    def _goal(self, value: float) -> float:
        allowed = allowed_drop(self._budget, self._bundle.spec.metric, value)
        return _DEFAULT_GOAL if allowed is None else max(allowed / 2, 0.0)

    def _repair(self, judge: Judge, trials: list[_Trial], base: Made, before: Scored, *, classes: bool) -> list[_Trial]:
        """The best candidate that loses too much, again with its most sensitive blocks left float."""
        goal = self._goal(before.score.value)
        order = sorted((t for t in trials if t.made and not t.reason), key=self._cost)
        fit = [t for t in order if t.made and judge.fits_without_metric(t.made, self._latency)]
        good = next((self._cost(t) for t in fit if t.drop <= goal), float("inf"))
        lossy = (t for t in order if t.drop > goal and self._cost(t) < good)
        worst = next((t for t in lossy if named(t.recipe).method in ("static", "dynamic")), None)
        if worst is None:
            return []
        self._say("ranking blocks by output error", worst.name)
        try:
            seconds = min(_SCAN_SECONDS, self._bench.timeout_s() / 2)
            ranking = self._bench.scan(worst.recipe, base, seconds)
        except UsageError as error:
            self._notes.append(f"{worst.name} was not repaired: {error.detail}")
            return []
        repaired: list[_Trial] = []
        for count in (k for k in _KEEP_FLOAT if k <= len(ranking)):
            kept = [name for block in ranking[:count] for name in block["nodes"]]
            name = f"{worst.recipe}-keep{count}"
            repaired.append(self._try(worst.recipe, base, before, classes=classes, kept=kept, name=name))
            if repaired[-1].drop <= goal:
                break
        return repaired

    def _speed(self, trial: _Trial) -> float:
        timed = self._latency.get(trial.name)
        return self._latency["original"].p50_ms / timed.p50_ms if timed else 0.0

    def _cost(self, trial: _Trial) -> float:
        """Smaller is better: latency and size as shares of the original."""
        if trial.made is None:
            return float("inf")
        speed = self._speed(trial)
        size = trial.made.path.stat().st_size / self._bench.original().path.stat().st_size
        return size + (1 / speed if speed else 10.0)

    def _judged(self, judge: Judge, trials: list[_Trial]) -> tuple[list[Candidate], Candidate | None]:
        """Candidates in the order of the samples that choose; the first that holds on the others is the answer.

        Each further one is judged at half the error level, so that trying again does not become a way to pass.
        """
        goal = self._goal(judge.before.score.value)
        allowed = 2 * goal
        runnable = [t for t in trials if t.made and not t.reason]
        fits = [judge.fits_without_metric(t.made, self._latency) for t in runnable if t.made]
        order = sorted(
            zip(runnable, fits, strict=True),
            key=lambda pair: (not pair[1], pair[0].drop > allowed, self._cost(pair[0])),
        )
        done: dict[str, Candidate] = {}
        winner = None
        for number, (trial, _) in enumerate(order):
            self._say("judging on samples not used before", trial.name)
            level = FIRST_LEVEL if winner else 1 - (1 - FIRST_LEVEL) / 2**number
            done[trial.name] = judge.candidate(trial.made, self._latency, level=level)
            if winner is None and done[trial.name].offered:
                winner = done[trial.name]
                self._best = trial.name
        rows = [done.get(t.name) or Candidate.failed(t.name, t.reason) for t in trials]
        return [judge.remarked(row, winner) for row in rows], winner
