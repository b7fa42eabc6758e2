"""The search for candidates: quantise, compare on the samples that choose, race beside the original, repair what loses too much.

One `Search` holds what was tried so far; `job` runs it, `structural` adds students to it, `verdicts` judges what it found.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavegate_server.compress.measure.run import Latency, race
from wavegate_server.compress.onnx_graph.magnitude import is_pruned
from wavegate_server.compress.search.judge import Judge
from wavegate_server.compress.search.workbench import Made, Scored, Workbench, against
from wavegate_server.core.compress.budget import BudgetItem, allowed_drop
from wavegate_server.core.compress.recipes import Planned, named
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = ["Say", "Search", "Trial", "to_keep", "to_repair"]

Say = Callable[[str, str, str], None]
"""Told stage, candidate and detail."""
RACE_BYTES = 1 << 30
_SCAN_SECONDS = 120.0
_KEEP_FLOAT = (1, 2, 3, 5, 8)
_FIRST_FLOAT = (3, 4)
"""Blocks at the start of a convolutional net: often the culprits, and together, so that int8 and float meet only once."""
_NEAR = 1.15
"""Costs this close are alike: of such candidates the one that loses least is repaired, and none where one is good already."""
_DEFAULT_GOAL = 0.01
_FIRST_RACE, _LAST_RACE = (4, 20.0), (12, 45.0)
"""Rounds, and seconds after which no further round begins."""
_HOPELESS_SPEED = 0.8
_BESIDE_STRUCTURE = 3
"""Recipes tried on the original where the size asked for needs a smaller structure anyway."""


@dataclass(slots=True)
class Trial:
    """A candidate on its way.

    Attributes:
        recipe: name of its recipe; empty for a student as it is.
        base: the graph the recipe starts from.
        drop: loss on the samples that choose.
    """

    name: str
    recipe: str
    base: Made | None = None
    made: Made | None = None
    drop: float = float("inf")
    agreement: float = 0.0
    reason: str = ""

    @property
    def runs(self) -> bool:
        """Whether there is something to measure."""
        return self.made is not None and not self.reason


class Search:
    """Candidates of one job. Attributes: trials; latency by name; notes for the reader."""

    def __init__(
        self,
        bench: Workbench,
        judge: Judge,
        budget: Sequence[BudgetItem],
        original: Made,
        before: Scored,
        *,
        classes: bool,
        say: Say,
    ) -> None:
        """`before`: the original on the samples that choose; `classes`: whether its outputs are scores of classes."""
        self.bench, self.judge, self.budget, self.original, self.before = bench, judge, budget, original, before
        self.classes = classes
        self.say = say
        self.trials: list[Trial] = []
        self.latency: dict[str, Latency] = {}
        self.notes: list[str] = []

    # --- limits ---------------------------------------------------------------------------------------------------------
    def limit(self, kind: str) -> float | None:
        """The budget's limit of a kind; None where it has none."""
        return next((item.limit for item in self.budget if item.kind == kind), None)

    def size_limit(self) -> float | None:
        """Largest share of the original's bytes; None where the budget does not say."""
        whole = self.original.path.stat().st_size
        change, most = self.limit("size_change"), self.limit("size_bytes")
        shares = [1 + change] if change is not None else []
        return min([*shares, *([most / whole] if most is not None else [])], default=None)

    def allowed(self) -> float:
        """Loss of the metric that the budget leaves room for."""
        return 2 * self.goal()

    def goal(self) -> float:
        """Loss to aim at: half of what is allowed, so that the samples that report can prove it."""
        allowed = allowed_drop(self.budget, self.bench.bundle.spec.metric, self.before.score.value)
        return _DEFAULT_GOAL if allowed is None else max(allowed / 2, 0.0)

    def fits(self, trial: Trial) -> bool:
        """Whether size, speed and the like are within the budget, whatever the metric says."""
        return trial.made is not None and trial.runs and self.judge.fits_without_metric(trial.made, self.latency)

    def cost(self, trial: Trial) -> float:
        """Smaller is better: latency and size as shares of the original."""
        if trial.made is None:
            return float("inf")
        speed = self.speed(trial)
        size = trial.made.path.stat().st_size / self.original.path.stat().st_size
        return size + (1 / speed if speed else 10.0)

    def speed(self, trial: Trial) -> float:
        """How many times as fast as the original; 0 before a race."""
        timed = self.latency.get(trial.name)
        return self.latency["original"].p50_ms / timed.p50_ms if timed else 0.0

    @property
    def best(self) -> str:
        """Name of the smallest and fastest candidate so far that keeps what the budget allows; empty before the first."""
        good = [trial for trial in self.trials if trial.runs and self.latency and trial.drop <= self.allowed()]
        return min(good, key=self.cost).name if good else ""

    # --- candidates -----------------------------------------------------------------------------------------------------
    def try_recipes(self, planned: Sequence[Planned], base: Made, *, structure_follows: bool) -> None:
        """Try recipes on the clean original, race what came out, repair the best that loses too much."""
        for at, each in enumerate(planned):
            reason = self._hopeless(each.recipe, at, structure_follows=structure_follows)
            self.trials.append(
                Trial(each.recipe, each.recipe, reason=reason) if reason else self.attempt(each.recipe, base)
            )
        if any(trial.made for trial in self.trials):
            self.first_race(self.trials)
            if not structure_follows:
                self.trials += self.repair(self.trials)

    def _hopeless(self, recipe: str, at: int, *, structure_follows: bool) -> str:
        """Why a recipe cannot meet the budget, from what is known without trying it."""
        if is_pruned(recipe) and not any(item.kind.startswith("download") for item in self.budget):
            return Sentence("candidate.not_tried_pruned")
        speed = self.limit("speed")
        if speed is not None and speed > 1 and not named(recipe).faster:
            return Sentence("candidate.not_tried_speed", factor=f"{speed:g}")
        if structure_follows and at >= _BESIDE_STRUCTURE:
            return Sentence("candidate.not_tried_structure")
        return ""

    def attempt(
        self, recipe: str, base: Made, *, kept: Sequence[str] = (), name: str = "", whole: Made | None = None
    ) -> Trial:
        """A recipe on a graph, compared with the original; `whole` is the same without nodes that are kept float."""
        trial = Trial(name or recipe, recipe, base)
        try:
            self.say("quantising", trial.name, "")
            trial.made = self.bench.make(recipe, base, list(kept), trial.name, whole)
        except UsageError as error:
            trial.reason = error.detail
            return trial
        return self.compared(trial)

    def compared(self, trial: Trial) -> Trial:
        """The trial with its loss on the samples that choose."""
        if trial.made is None:
            return trial
        self.say("comparing with the original", trial.name, "")
        try:
            after = self.bench.score(trial.made, self.bench.splits.choose)
        except UsageError as error:
            trial.made, trial.reason = None, error.detail
            return trial
        if not after.score.finite:
            trial.reason = Sentence("candidate.not_finite")
            return trial
        beside = against(self.before, after, classes=self.classes)
        trial.agreement = beside.agreement
        alike = beside.agreement if self.classes else 1 - beside.error
        trial.drop = self._drop(after, alike, beside.mean_difference)
        return trial

    def _drop(self, after: Scored, agreement: float, difference: float) -> float:
        """Loss on the samples that choose; without labels, the most it can be: every changed answer was right before."""
        metric = self.bench.bundle.spec.metric
        if self.bench.splits.choose.labelled:
            sign = 1 if metric.direction == "up" else -1
            return sign * (self.before.score.value - after.score.value)
        return 1 - agreement if metric.direction == "up" else difference

    # --- races ----------------------------------------------------------------------------------------------------------
    def first_race(self, trials: Sequence[Trial]) -> None:
        """Time candidates beside the original, in a few rounds."""
        self._raced([trial for trial in trials if trial.runs], *_FIRST_RACE)

    def last_race(self) -> None:
        """Time again, in more rounds, those that can still win; the others keep their figures of the first race."""
        close = [t for t in self.trials if t.runs and (t.name not in self.latency or self._may_win(t))]
        self._raced(close, *_LAST_RACE)

    def _may_win(self, trial: Trial) -> bool:
        """Whether it is within the budget, or so close to its speed that a better race may say so."""
        speed, size = self.limit("speed"), self.size_limit()
        if trial.made is None or trial.drop > 2 * self.allowed():
            return False
        small = size is None or trial.made.path.stat().st_size <= size * self.original.path.stat().st_size
        return small and (speed is None or self.speed(trial) >= _HOPELESS_SPEED * speed)

    def _raced(self, trials: Sequence[Trial], rounds: int, seconds: float) -> None:
        self.say("racing the candidates against the original", "", "")
        failed = self._race([trial.made for trial in trials if trial.made], rounds, seconds)
        for trial in trials:
            trial.reason = trial.reason or failed.get(trial.name, "")

    def _race(self, made: Sequence[Made], rounds: int, seconds: float) -> dict[str, str]:
        """Time the original and candidates side by side in one process; gives the reasons of those that could not run.

        Models too large to be loaded together, or one that brings the process down, race in pairs with the original. Times of
        other runs are scaled to this one's original.
        """
        together = sum(each.path.stat().st_size for each in [self.original, *made]) <= RACE_BYTES
        if together:
            with suppress(UsageError):
                self._take(self._timed(made, rounds, seconds))
                return {}
        failed: dict[str, str] = {}
        reference = None if made else self._timed([], rounds, seconds)["original"]
        pairs: dict[str, Latency] = {}
        for each in made:
            try:
                pair = self._timed([each], rounds, seconds / len(made))
            except UsageError as error:
                failed[each.name] = error.detail
                continue
            reference = reference or pair["original"]
            pairs[each.name] = pair[each.name].scaled(reference.p50_ms / pair["original"].p50_ms)
        self._take({**pairs, "original": reference or self._timed([], rounds, seconds)["original"]})
        return failed

    def _take(self, fresh: dict[str, Latency]) -> None:
        """Keep new times, and older ones on the clock of the new original."""
        if "original" in self.latency:
            factor = fresh["original"].p50_ms / self.latency["original"].p50_ms
            self.latency = {name: timed.scaled(factor) for name, timed in self.latency.items()}
        self.latency.update(fresh)

    def _timed(self, made: Sequence[Made], rounds: int, seconds: float) -> dict[str, Latency]:
        bundle = self.bench.bundle
        models: dict[str, Path] = {"original": self.original.path, **{each.name: each.path for each in made}}
        fronts = {each.name: each.front.place() for each in made if each.front is not None}
        return race(
            models, self.bench.splits.report.file, bundle.spec, bundle.directory,
            rounds=rounds, seconds=seconds, fronts=fronts,
        )  # fmt: skip

    # --- repair ---------------------------------------------------------------------------------------------------------
    def repair(self, trials: Sequence[Trial]) -> list[Trial]:
        """The most promising candidate that loses too much, again with its most sensitive blocks left float."""
        goal = self.goal()
        worst = to_repair(trials, goal, cost=self.cost, fits=self.fits)
        if worst is None or worst.base is None:
            return []
        self.say("ranking blocks by output error", worst.name, "")
        try:
            seconds = min(_SCAN_SECONDS, self.bench.timeout_s() / 2)
            ranking = self.bench.scan(worst.recipe, worst.base, seconds)
        except UsageError as error:
            self.notes.append(Sentence("note.not_repaired", name=worst.name, why=error.detail))
            return []
        repaired: list[Trial] = []
        for name, blocks in to_keep(ranking, convolutional="Conv" in named(worst.recipe).ops):
            kept = [node for block in blocks for node in block["nodes"]]
            repaired.append(
                self.attempt(worst.recipe, worst.base, kept=kept, name=f"{worst.name}-{name}", whole=worst.made)
            )
            if repaired[-1].drop <= goal:
                break
        return repaired


def to_repair(
    trials: Sequence[Trial], goal: float, *, cost: Callable[[Trial], float], fits: Callable[[Trial], bool]
) -> Trial | None:
    """Of the candidates that lose more than `goal`, the one to repair: the cheapest, and among such as cheap the least lossy."""
    order = sorted((trial for trial in trials if trial.runs), key=cost)
    good = next((cost(t) for t in order if fits(t) and t.drop <= goal), float("inf"))
    lossy = [t for t in order if t.drop > goal and _NEAR * cost(t) < good and t.recipe]
    lossy = [t for t in lossy if named(t.recipe).method in ("static", "dynamic")]
    near = (t for t in lossy if cost(t) <= _NEAR * cost(lossy[0]))
    return min(near, key=lambda trial: trial.drop, default=None)


def to_keep(
    ranking: Sequence[dict[str, Any]], *, convolutional: bool
) -> Iterator[tuple[str, Sequence[dict[str, Any]]]]:
    """What to leave float, cheapest first: the start of a convolutional net, then the most sensitive blocks."""
    for count in (k for k in _FIRST_FLOAT if convolutional and 2 * k <= len(ranking)):
        yield f"first{count}", [block for block in ranking if block["at"] < count]
    for count in (k for k in _KEEP_FLOAT if k <= len(ranking)):
        yield f"keep{count}", ranking[:count]
