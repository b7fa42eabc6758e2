"""The structural step: when recipes alone are not small or fast enough, a smaller structure is cut, distilled, and quantised last.

It starts at the lightest structure that is predicted to be enough. One that loses too much is followed by a lighter one; one
that is not small or fast enough yet, by a heavier one. Without a limit on size and speed it goes on to the largest reduction
that keeps to the metric's limit. Predictions only choose where to start: what counts is what the students measure.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from wavegate_server.compress.search.candidates import Search, Trial
from wavegate_server.compress.search.distilling import DistilSteps, Taught, Teaching
from wavegate_server.core.bundle_spec import BundleSpec
from wavegate_server.core.compress.recipes import Planned, named
from wavegate_server.core.compress.structures import Limits, Structure, first_to_try, next_to_try
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = ["StructuralStep", "possible", "reach_of_recipes", "why_not"]

_QUANTISED = 2
"""Recipes tried on each student: those that did best on the original."""
_SHARE_OF_TIME = 0.6
"""Of what is left, for the teacher's answers, and again for each student."""
_LEAST_SECONDS = 20.0
_MOST_STUDENTS = 4
_SMALLEST_RECIPE = 0.12
"""Share of the bytes below which no recipe gets: 4-bit weights are an eighth."""


def why_not(spec: BundleSpec) -> str:
    """Why a bundle cannot be distilled; empty where it can."""
    lacking = [name for name, entry in (("source", spec.source), ("train", spec.train)) if entry is None]
    if lacking:
        return Sentence("note.structure_lacks", names=lacking)
    if any(find_spec(name) is None for name in ("torch", "safetensors")):
        return Sentence("note.structure_torch")
    return ""


def possible(spec: BundleSpec) -> bool:
    """Whether a bundle can be distilled here."""
    return not why_not(spec)


def reach_of_recipes(search: Search) -> bool:
    """Whether quantising alone could be small enough."""
    size = search.size_limit()
    return size is None or size >= _SMALLEST_RECIPE


class StructuralStep:
    """The step on one search."""

    def __init__(
        self, search: Search, planned: Sequence[Planned], teaching: Teaching, left_s: Callable[[], float]
    ) -> None:
        """`planned`: recipes of the model's family; `left_s`: seconds the step may still take."""
        self._search, self._planned, self._teaching, self._left_s = search, planned, teaching, left_s
        self._steps = DistilSteps(search.bench, search.original, search.before, teaching, classes=search.classes)

    def wanted(self) -> bool:
        """Whether size or speed is still short, or the budget sets no limit to them."""
        search = self._search
        if search.size_limit() is None and search.limit("speed") is None:
            return True
        return not any(search.fits(trial) and self._loss(trial) <= search.allowed() for trial in search.trials)

    def run(self) -> None:
        """Add students, quantised, raced and repaired, to the search's trials."""
        search = self._search
        search.say("looking for smaller structures", "", "")
        try:
            structures = self._steps.propose()
            if not structures:
                search.notes.append(Sentence("note.structure_unknown"))
                return
            search.say("asking the teacher about the train set", "", "")
            teacher = self._steps.teach(_SHARE_OF_TIME * self._left_s())
        except UsageError as error:
            search.notes.append(Sentence("note.structure", why=error.detail))
            search.trials.append(Trial("distilled", "", reason=error.detail))
            return
        limits = Limits(search.size_limit(), search.limit("speed"), self._int8_speed())
        at: int | None = first_to_try(structures, limits)
        tried: list[int] = []
        while at is not None and len(tried) < _MOST_STUDENTS and self._left_s() > _LEAST_SECONDS:
            tried.append(at)
            family = self._one(structures[at], teacher)
            lossy = not any(trial.runs and self._loss(trial) <= search.allowed() for trial in family)
            if not lossy and self._enough(family):
                return
            at = next_to_try(at, tried, len(structures), lossy=lossy)

    def _enough(self, family: Sequence[Trial]) -> bool:
        search = self._search
        if search.size_limit() is None and search.limit("speed") is None:
            return False  # the largest reduction is asked for
        return any(search.fits(trial) and self._loss(trial) <= search.allowed() for trial in family)

    def _loss(self, trial: Trial) -> float:
        """Expected loss: without labels `drop` counts every changed answer as wrong, and about half of them are."""
        labelled = self._search.bench.splits.choose.labelled or not self._search.classes
        return trial.drop if labelled else trial.drop / 2

    def _one(self, structure: Structure, teacher: object) -> list[Trial]:
        """One student and its quantised forms."""
        search = self._search
        name = structure.name
        student = Trial(name, "")
        try:
            taught = self._taught(structure, teacher)
            base = search.bench.base(taught.made)
        except UsageError as error:
            student.reason = error.detail
            search.trials.append(student)
            return [student]
        points = search.bench.bundle.spec.metric.unit == "share"
        base.notes.append(taught.words(points=points))
        student.made = taught.made
        student.made.notes.append(taught.words(points=points))
        family = [search.compared(student)]
        for recipe in self._recipes():
            family.append(search.attempt(recipe, base, name=f"{name}+{recipe}"))
            if (made := family[-1].made) is not None:
                made.notes.append(taught.words(points=points))
        search.first_race(family)
        if self._loss(student) <= search.allowed():  # else it is the structure that loses, not the quantiser
            family += search.repair([trial for trial in family if trial.recipe])
        search.trials += family
        return family

    def _taught(self, structure: Structure, teacher: object) -> Taught:
        from pathlib import Path

        search = self._search
        labelled = search.bench.splits.choose.labelled
        goal = search.goal() / 2 if labelled else search.goal()
        seconds = min(max(_SHARE_OF_TIME * self._left_s(), _LEAST_SECONDS), self._left_s())
        search.say("distilling", structure.name, "")
        return self._steps.student(
            structure,
            Path(str(teacher)),
            goal,
            seconds,
            lambda detail: search.say("distilling", structure.name, detail),
        )

    def _recipes(self) -> list[str]:
        """The quantising recipes that did best on the original, else the first of its family."""
        search = self._search
        quantising = [
            each.recipe for each in self._planned if named(each.recipe).method in ("dynamic", "static", "nbits")
        ]
        ran = {
            trial.recipe: trial for trial in search.trials if trial.runs and trial.base and trial.name == trial.recipe
        }
        known = sorted((name for name in quantising if name in ran), key=lambda name: search.cost(ran[name]))
        return [*known, *(name for name in quantising if name not in ran)][:_QUANTISED]

    def _int8_speed(self) -> float:
        search = self._search
        return max((search.speed(trial) for trial in search.trials if trial.runs and trial.recipe), default=1.0)
