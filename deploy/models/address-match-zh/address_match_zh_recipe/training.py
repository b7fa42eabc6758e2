"""Training from random weights on two cores: batches of like length, one loop, a checkpoint now and then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from address_match_zh_recipe.net import Matcher
from address_match_zh_recipe.pairs import Pair
from wavegate_shared.wordpiece import WordPiece

__all__ = ["Encoded", "Plan", "encode", "fit", "logits_of"]

ENCODE_BATCH = 256
REPORT_EVERY = 100
WARM_UP = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """How the training run goes.

    Attributes:
        steps: Optimiser steps.
        batch: Pairs a step.
        rate: Peak learning rate; linear warm-up, cosine decay.
        hide: Share of the names' characters whose vectors are hidden.
        seed: Seeds weights, order and hiding.
        half: Whether products are computed in bf16; half the time, and less stable.
    """

    steps: int
    batch: int
    rate: float
    hide: float
    seed: int
    half: bool = False


@dataclass(frozen=True, slots=True)
class Encoded:
    """Pairs as token ids, rows of like width together.

    Attributes:
        blocks: (ids, masks, types) of the pairs of one block, each (k, width) int64.
        rows: (k,) int64 place of each row of a block in the list of pairs.
        labels: (k,) int64 per block.
    """

    blocks: list[tuple[Tensor, Tensor, Tensor]]
    rows: list[NDArray[np.int64]]
    labels: list[Tensor]


def encode(tokenizer: WordPiece, pairs: Sequence[Pair]) -> Encoded:
    """Token ids of all pairs by the product's own tokenizer."""
    order = np.array(sorted(range(len(pairs)), key=lambda i: len(pairs[i].a) + len(pairs[i].b)), np.int64)
    found = Encoded([], [], [])
    for start in range(0, len(order), ENCODE_BATCH):
        rows = order[start : start + ENCODE_BATCH]
        got = tokenizer.encode_pairs([(pairs[i].a, pairs[i].b) for i in rows])
        fields = (got.input_ids, got.attention_mask, got.token_type_ids)
        ids, masks, types = (torch.tensor(field, dtype=torch.int64) for field in fields)
        found.blocks.append((ids, masks, types))
        found.rows.append(rows)
        found.labels.append(torch.tensor([pairs[i].label for i in rows]))
    return found


def fit(model: Matcher, data: Encoded, plan: Plan, checkpoint: Path) -> None:
    """Trains the model in place and leaves it in eval mode; its weights so far lie in `checkpoint`."""
    torch.manual_seed(plan.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.01)
    model.train()
    model.hide = plan.hide
    started, running = time.monotonic(), 0.7
    for step, (fields, labels) in enumerate(_batches(data, plan)):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * _schedule(step, plan.steps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=plan.half):
            logits = model(*fields)
        loss = functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        running += (loss.item() - running) / 50
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == plan.steps:
            sys.stderr.write(
                f"  step {step + 1}/{plan.steps}  loss {running:.4f}  {time.monotonic() - started:.0f} s\n"
            )
            sys.stderr.flush()
            torch.save(model.state_dict(), checkpoint)
    model.eval()


def logits_of(model: Matcher, data: Encoded) -> NDArray[np.float32]:
    """The model's logits, (n, 2) float32, in the order of the pairs."""
    model.eval()
    out = np.zeros((sum(map(len, data.rows)), 2), np.float32)
    for fields, rows in zip(data.blocks, data.rows, strict=True):
        with torch.inference_mode():
            out[rows] = model(*fields).numpy()
    return out


def _batches(data: Encoded, plan: Plan) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor], Tensor]]:
    """Parts of blocks in shuffled order, `plan.steps` of them."""
    rng = np.random.default_rng(plan.seed)
    parts = ENCODE_BATCH // plan.batch
    done = 0
    while done < plan.steps:
        shuffled = [torch.from_numpy(rng.permutation(len(rows))) for rows in data.rows]
        for place in rng.permutation(len(data.blocks) * parts):
            if done == plan.steps:
                return
            block, part = divmod(int(place), parts)
            rows = shuffled[block][part * plan.batch : (part + 1) * plan.batch]
            if len(rows) < plan.batch // 2:
                continue
            ids, masks, types = data.blocks[block]
            yield (ids[rows], masks[rows], types[rows]), data.labels[block][rows]
            done += 1


def _schedule(step: int, steps: int) -> float:
    warm = max(1, math.ceil(WARM_UP * steps))
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm))) + 1e-3)
