"""Batches, losses and the training loop of the distillation. Needs torch; runs in the job's subprocesses only.

The loss is Hinton's (2015): alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross entropy with the labels; for outputs
that are no classes the mean squared differences, in units of the teacher's variance. The teacher is an array of its
answers, computed once. bf16 where the processor multiplies it, few distinct shapes, few threads: then two cores are enough.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavegate_server.compress.distil.transformer import first_output
from wavegate_server.compress.measure.samples import Feed

__all__ = ["Check", "Group", "Plan", "Progress", "Trained", "answers", "batches", "fit", "group"]

_EVAL_BATCH = 128
_CHECKS = 10
_FIRST_CHECK = 0.4
_WARM_UP = 0.08
_REPORT_EVERY = 20
_GOOD_IN_A_ROW = 2
_COOL_DOWN = 0.15
"""Share of a training that follows once the goal is reached, its rate falling to zero: the last steps gain the most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one distillation goes.

    Attributes:
        steps: optimiser steps at most.
        batch: samples a step.
        rate: peak learning rate; a linear warm-up, then a linear decay to zero over the steps or the time, whichever ends first.
        temperature: softens both sides.
        alpha: share of the teacher in the loss; the labels have the rest.
        seed: of the order of the samples and of dropout.
        seconds: time limit.
        goal: loss of the metric on the samples that choose at which to stop early.
        classes: whether the outputs are scores of classes.
    """

    steps: int
    batch: int
    rate: float
    temperature: float = 5.0
    alpha: float = 0.7
    seed: int = 13
    seconds: float = 600.0
    goal: float = 0.0
    classes: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Samples of one shape. Attributes: rows, their places in the set; arrays, (n, ...) by input name."""

    rows: NDArray[np.int64]
    arrays: Feed


@dataclass(frozen=True, slots=True)
class Check:
    """A student on the samples that choose. Attributes: drop of the metric, error of the outputs; less is better."""

    drop: float
    error: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is. `best` is the smallest drop so far, None before the first check."""

    step: int
    steps: int
    epoch: int
    loss: float
    best: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended. Attributes: steps done, loss, best check, stopped: "steps", "budget" or "time"."""

    steps: int
    loss: float
    best: Check
    stopped: str
    seconds: float


def group(feeds: Sequence[Feed]) -> list[Group]:
    """Feeds of batch size 1 as groups of one shape each."""
    places: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at, feed in enumerate(feeds):
        places.setdefault(tuple(array.shape for array in feed.values()), []).append(at)
    return [
        Group(np.array(rows), {name: np.concatenate([feeds[at][name] for at in rows]) for name in feeds[rows[0]]})
        for rows in places.values()
    ]


def batches(groups: Sequence[Group], size: int) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """All samples once, in order."""
    for each in groups:
        for start in range(0, len(each.rows), size):
            part = slice(start, start + size)
            yield each.rows[part], {name: torch.from_numpy(array[part]) for name, array in each.arrays.items()}


def answers(module: Any, groups: Sequence[Group], *, exact: bool = False) -> NDArray[np.float32]:
    """The module's first output on every sample, (n, ...) float32, in the samples' order. `exact`: no bf16."""
    module.eval()
    rows, made = [], []
    with torch.inference_mode(), _cast(enabled=not exact):
        for places, feed in batches(groups, _EVAL_BATCH):
            made.append(first_output(module(*feed.values())).float().numpy())
            rows.append(places)
    order = np.concatenate(rows).argsort()
    joined: NDArray[np.float32] = np.concatenate(made)[order]
    return joined


def _cast(*, enabled: bool = True) -> Any:
    able = any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled and able)


def fit(
    module: Any,
    groups: Sequence[Group],
    teacher: NDArray[np.float32],
    labels: NDArray[Any] | None,
    plan: Plan,
    check: Callable[[Any], Check],
    report: Callable[[Progress], None],
) -> Trained:
    """Distil into the module in place; it ends in eval mode with the weights that checked best.

    Args:
        module: the student.
        groups: training samples.
        teacher: (n, ...) the teacher's answers on them.
        labels: (n,) classes or (n, ...) numbers; None where there are none: the teacher is then all there is.
        plan: steps, rate, time.
        check: the student on the samples that choose.
        report: told where it is.
    """
    torch.manual_seed(plan.seed)
    _without_dropout(module)
    kept = _Best(module, check, plan.goal)
    lesson = _Lesson(module, teacher, labels, plan if labels is not None else replace(plan, alpha=1.0))
    epoch = max(1, sum(-(-len(each.rows) // plan.batch) for each in groups))
    schedule, running, stopped, step = _Schedule(plan), 0.0, "steps", 0
    for step, (rows, feed) in enumerate(_shuffled(groups, plan), 1):
        done = schedule.done(step)
        if done >= schedule.ends:
            stopped = "time"
            break
        running += (lesson.step(rows, feed, schedule.rate(done)) - running) / min(step, 50)
        if step % _REPORT_EVERY == 0:
            report(Progress(step, plan.steps, 1 + step // epoch, running, kept.drop))
        if kept.due(done) and kept.look():
            schedule.cool(done)
    stopped = "budget" if schedule.cooling else stopped
    return Trained(step, running, kept.end(), stopped, schedule.seconds())


def _without_dropout(module: Any) -> None:
    """A student is small and its targets are soft: dropout only costs a seventh of the time."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


class _Schedule:
    """How far a training is, in 0..1 by steps or time, whichever is further; its rate there; and when it ends."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._started = plan, time.monotonic()
        self._cools: float | None = None
        self.ends = 1.0

    @property
    def cooling(self) -> bool:
        return self._cools is not None

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def done(self, step: int) -> float:
        return max((step - 1) / self._plan.steps, self.seconds() / self._plan.seconds)

    def rate(self, done: float) -> float:
        """A linear warm-up, then a linear decay to zero at the end; a steeper one once it cools."""
        if self._cools is None or self.ends == 1.0:
            return self._plan.rate * _ramp(done)
        return self._plan.rate * _ramp(self._cools) * max(0.0, self.ends - done) / (self.ends - self._cools)

    def cool(self, done: float) -> None:
        """The goal is reached: end soon."""
        if self._cools is None:
            self._cools, self.ends = done, min(1.0, done + _COOL_DOWN)


class _Best:
    """The best weights so far, by the samples that choose."""

    def __init__(self, module: Any, check: Callable[[Any], Check], goal: float) -> None:
        self._module, self._check, self._goal = module, check, goal
        self._found = Check(math.inf, math.inf)
        self._weights: dict[str, Any] = {}
        self._looks = self._good = 0

    @property
    def drop(self) -> float | None:
        return None if math.isinf(self._found.drop) else self._found.drop

    def due(self, done: float) -> bool:
        return done >= _FIRST_CHECK + self._looks * (1 - _FIRST_CHECK) / _CHECKS

    def look(self) -> bool:
        """Check the module now; whether it was good enough often enough to stop."""
        self._looks += 1
        found = self._check(self._module.eval())
        if (found.drop, found.error) <= (self._found.drop, self._found.error):
            self._found, self._weights = found, copy.deepcopy(self._module.state_dict())
        self._good = self._good + 1 if found.drop <= self._goal else 0
        return self._good >= _GOOD_IN_A_ROW

    def end(self) -> Check:
        self.look()
        self._module.load_state_dict(self._weights)
        return self._found


class _Lesson:
    """One optimiser step at a time."""

    def __init__(self, module: Any, teacher: NDArray[np.float32], labels: NDArray[Any] | None, plan: Plan) -> None:
        self._module, self._teacher, self._labels, self._plan = module, teacher, labels, plan
        self._optimiser = torch.optim.AdamW(module.parameters(), lr=plan.rate, weight_decay=0.01, fused=True)
        self._spread = float(np.var(teacher)) or 1.0

    def step(self, rows: NDArray[np.int64], feed: dict[str, Tensor], rate: float) -> float:
        for held in self._optimiser.param_groups:
            held["lr"] = rate
        self._module.train()
        with _cast():
            got = first_output(self._module(*feed.values()))
        truth = None if self._labels is None else torch.from_numpy(self._labels[rows])
        loss = _loss(got.float(), torch.from_numpy(self._teacher[rows]), truth, self._plan, self._spread)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._module.parameters(), 1.0)
        self._optimiser.step()
        return float(loss.detach())


def _loss(got: Tensor, soft: Tensor, truth: Tensor | None, plan: Plan, spread: float) -> Tensor:
    if not plan.classes:
        far = nn.functional.mse_loss(got, soft) / spread
        if truth is None:
            return far
        near = nn.functional.mse_loss(got, truth.to(got.dtype).reshape(got.shape)) / spread
        return plan.alpha * far + (1 - plan.alpha) * near
    t = plan.temperature
    # T^2 keeps the size of the soft gradient independent of T (Hinton et al. 2015)
    logs = (nn.functional.log_softmax(each / t, dim=-1) for each in (got, soft))
    far = t**2 * nn.functional.kl_div(*logs, log_target=True, reduction="batchmean")
    return far if truth is None else plan.alpha * far + (1 - plan.alpha) * nn.functional.cross_entropy(got, truth)


def _shuffled(groups: Sequence[Group], plan: Plan) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """`plan.steps` batches of one shape each, every sample once an epoch."""
    rng = np.random.default_rng(plan.seed)
    done = 0
    while done < plan.steps:
        parts: list[tuple[Group, NDArray[np.int64]]] = []
        for each in groups:
            order = rng.permutation(len(each.rows))
            parts += [(each, order[at : at + plan.batch]) for at in range(0, len(order), plan.batch)]
        for number in rng.permutation(len(parts)):
            if done == plan.steps:
                return
            each, places = parts[number]
            yield each.rows[places], {name: torch.from_numpy(array[places]) for name, array in each.arrays.items()}
            done += 1


def _ramp(done: float) -> float:
    return min(max(done, 1e-3) / _WARM_UP, (1 - done) / (1 - _WARM_UP))
