"""Fine-tuning and distillation on the CPU: batches, losses, one training loop.

bf16 autocast, few distinct widths and one running job make a two-core machine
enough; see `make.py` for the times.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from address_match_recipe.bert import CrossEncoder
from address_match_recipe.pairs import Pair
from wavegate_shared.wordpiece import WordPiece

__all__ = ["Plan", "fit", "logits_of", "tensors"]

LABEL_SHARE = 0.3  # 1 - alpha: the share of the true labels in the distillation loss
EVAL_BATCH = 256
REPORT_EVERY = 25


@dataclass(frozen=True, slots=True)
class Plan:
    """How one training run goes.

    Attributes:
        steps: Optimiser steps.
        batch: Pairs a step.
        rate: Peak learning rate; linear warm-up over 8 % of the steps, then
            linear decay to zero.
        temperature: Softens teacher and student in the distillation loss.
        seed: Seeds the order of the pairs and dropout.
    """

    steps: int
    batch: int
    rate: float
    temperature: float = 2.0
    seed: int = 11


def fit(
    model: CrossEncoder,
    tokenizer: WordPiece,
    pairs: Sequence[Pair],
    plan: Plan,
    *,
    teacher: NDArray[np.float32] | None = None,
) -> None:
    """Trains the model in place; with teacher logits it distils.

    Args:
        model: Changed in place, left in eval mode.
        tokenizer: The model's own.
        pairs: (n,) training pairs.
        plan: Steps, batch, rate, seed.
        teacher: (n, 2) float32 logits of the teacher on `pairs`, or None to
            train on the labels only.
    """
    torch.manual_seed(plan.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.01)
    model.train()
    started, running = time.monotonic(), 0.0
    for step, rows in enumerate(_batches(pairs, plan)):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * _schedule(step, plan.steps)
        # Either order of a pair is the same question, so half the rows are turned.
        turned = torch.rand(len(rows)) < 0.5
        batch = [
            (pairs[i].b, pairs[i].a) if turn else (pairs[i].a, pairs[i].b)
            for i, turn in zip(rows, turned.tolist(), strict=True)
        ]
        labels = torch.tensor([pairs[i].label for i in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(*tensors(tokenizer, batch))
        soft = None if teacher is None else torch.from_numpy(teacher[rows])
        loss = _loss(logits.float(), labels, soft, plan.temperature)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        running += (loss.item() - running) / min(step + 1, 50)
        _report(step, plan.steps, running, started)
    model.eval()


def logits_of(model: CrossEncoder, tokenizer: WordPiece, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """The model's logits on every pair, (n, 2) float32, in the order given."""
    model.eval()
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].a) + len(pairs[i].b))
    out = np.zeros((len(pairs), 2), np.float32)
    for start in range(0, len(order), EVAL_BATCH):
        rows = order[start : start + EVAL_BATCH]
        batch = [(pairs[i].a, pairs[i].b) for i in rows]
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            out[rows] = model(*tensors(tokenizer, batch)).float().numpy()
    return out


def tensors(tokenizer: WordPiece, batch: Sequence[tuple[str, str]]) -> tuple[Tensor, ...]:
    """The model's three (n, width) int64 inputs for a batch of pairs."""
    encoded = tokenizer.encode_pairs(batch)
    fields = (encoded.input_ids, encoded.attention_mask, encoded.token_type_ids)
    return tuple(torch.tensor(field, dtype=torch.int64) for field in fields)


def _loss(logits: Tensor, labels: Tensor, soft: Tensor | None, temperature: float) -> Tensor:
    hard = functional.cross_entropy(logits, labels)
    if soft is None:
        return hard
    # Hinton et al. 2015: T^2 keeps the soft gradient's size independent of T.
    distil = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=-1),
        functional.log_softmax(soft / temperature, dim=-1),
        log_target=True,
        reduction="batchmean",
    )
    return (1 - LABEL_SHARE) * temperature**2 * distil + LABEL_SHARE * hard


def _batches(pairs: Sequence[Pair], plan: Plan) -> Iterator[list[int]]:
    """Rows of pairs of similar length, in shuffled order, `plan.steps` of them."""
    rng = np.random.default_rng(plan.seed)
    lengths = np.array([len(pair.a) + len(pair.b) for pair in pairs])
    done = 0
    while done < plan.steps:
        order = rng.permutation(len(pairs))
        for start in range(0, len(order), 16 * plan.batch):
            pool = order[start : start + 16 * plan.batch]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            chunks = [pool[i : i + plan.batch] for i in range(0, len(pool), plan.batch)]
            for index in rng.permutation(len(chunks)):
                if done == plan.steps:
                    return
                yield [int(row) for row in chunks[index]]
                done += 1


def _schedule(step: int, steps: int) -> float:
    warm = max(1, math.ceil(0.08 * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _report(step: int, steps: int, loss: float, started: float) -> None:
    if (step + 1) % REPORT_EVERY and step + 1 != steps:
        return
    elapsed = time.monotonic() - started
    sys.stderr.write(f"  step {step + 1}/{steps}  loss {loss:.4f}  {elapsed:.0f} s\n")
    sys.stderr.flush()
