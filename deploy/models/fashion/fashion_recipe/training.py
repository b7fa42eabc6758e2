"""The training script's own half: how it prepares images, trains the teacher, and scores. CPU, bf16 autocast.

`prepared` is what the bundle's declared pre-processing must equal, value by value: a test compares the two.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fashion_recipe.data import Split

__all__ = ["MEAN", "STD", "Plan", "accuracy", "fit", "logits_of", "prepared"]

MEAN, STD = 0.2860, 0.3530  # of the training images after division by 255
_REPORT_EVERY = 20
_EVAL_BATCH = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """How one training run goes: `steps` of `batch` images, learning rate up to `rate` and down again."""

    steps: int
    batch: int = 128
    rate: float = 0.1
    weight_decay: float = 5e-4
    seed: int = 11


def prepared(images: NDArray[np.uint8]) -> Tensor:
    """(n, 28, 28) uint8 to (n, 1, 28, 28) float32: divided by 255, minus the mean, over the deviation."""
    scaled = torch.from_numpy(np.ascontiguousarray(images)).to(torch.float32).div(255)
    return scaled.sub(MEAN).div(STD).unsqueeze(1)


def fit(model: nn.Module, split: Split, plan: Plan) -> None:
    """Train in place with SGD, one cycle; left in eval mode."""
    torch.manual_seed(plan.seed)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=plan.rate, momentum=0.9, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.steps, pct_start=0.25)
    images, labels = prepared(split.images), torch.from_numpy(split.labels)
    model.train()
    started, running = time.monotonic(), 0.0
    for step, rows in enumerate(_batches(len(labels), plan)):
        batch = _augmented(images[rows]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch)
        loss = functional.cross_entropy(logits.float(), labels[rows])
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        cycle.step()
        running += (loss.item() - running) / min(step + 1, 50)
        _report(step, plan.steps, running, started)
    model.eval()


def logits_of(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 10) float32 logits, computed in float32."""
    model.eval()
    out = []
    with torch.inference_mode():
        for start in range(0, len(images), _EVAL_BATCH):
            out.append(model(prepared(images[start : start + _EVAL_BATCH])).numpy())
    return np.concatenate(out)


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of right answers."""
    return float((logits.argmax(axis=1) == labels).mean())


def _augmented(images: Tensor) -> Tensor:
    """Half of them mirrored: a shoe may point either way."""
    mirrored = torch.rand(len(images)) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def _batches(count: int, plan: Plan) -> Iterator[Tensor]:
    done = 0
    while True:
        order = torch.randperm(count)
        for start in range(0, count - plan.batch + 1, plan.batch):
            if done == plan.steps:
                return
            yield order[start : start + plan.batch]
            done += 1


def _report(step: int, steps: int, loss: float, started: float) -> None:
    if (step + 1) % _REPORT_EVERY and step + 1 != steps:
        return
    sys.stderr.write(f"  step {step + 1}/{steps}  loss {loss:.4f}  {time.monotonic() - started:.0f} s\n")
    sys.stderr.flush()
