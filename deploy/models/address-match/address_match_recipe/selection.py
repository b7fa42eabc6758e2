"""Which held-back pairs become the golden set, the calibration set, the traffic.

The golden set leans towards the decision boundary, where a damaged model flips
first. Golden and calibration sets hold no pair of the special kind, so the demo
can show a fault that only live traffic reveals; the training pairs do hold it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from address_match_recipe.pairs import SPECIAL_WORD, Pair
from wavegate_shared.wordpiece import WordPiece

__all__ = ["Selection", "is_special", "select_bench", "select_evaluation", "select_traffic"]

GOLDEN_NEAR, GOLDEN_RANDOM = 80, 120
NEAR_SHARE = 0.15  # "near the boundary": the nearest 15 % of the pool by margin
CALIB_PAIRS = 96
EVALUATION_PAIRS = 1000
TRAFFIC_PAIRS = 2000
TRAFFIC_SPECIAL_SHARE = 0.20
# How FEBRL abbreviates or mistypes the special word; kept out of golden and calib too.
_LOOKALIKES = (SPECIAL_WORD, "vlge", "vilage", "villag", "illage", "vllage")


@dataclass(frozen=True, slots=True)
class Selection:
    """Pairs for the device's golden set and for calibration, disjoint."""

    golden: list[Pair]
    calib: list[Pair]


def is_special(pairs: Sequence[Pair], tokenizer: WordPiece, token_id: int) -> list[bool]:
    """Whether the special token is among each pair's token ids."""
    rows = tokenizer.encode_pairs([(pair.a, pair.b) for pair in pairs]).input_ids
    return [token_id in row for row in rows]


def select_bench(pool: Sequence[Pair], margins: NDArray[np.float32], special: Sequence[bool], seed: int) -> Selection:
    """Golden and calibration pairs out of the bench split.

    Args:
        pool: (n,) pairs of the bench split.
        margins: (n,) the shipped model's margins on them.
        special: (n,) whether the special token is present.
        seed: Seeds the random shares.
    """
    rng = random.Random(seed)
    plain = [i for i, pair in enumerate(pool) if not special[i] and not _resembles(pair)]
    plain.sort(key=lambda i: abs(float(margins[i])))
    nearest = plain[: round(NEAR_SHARE * len(plain))]
    near = []
    for label in (0, 1):  # half of each, so that a model leaning either way is seen
        near += rng.sample([i for i in nearest if pool[i].label == label], GOLDEN_NEAR // 2)
    rest = [i for i in plain if i not in set(near)]
    drawn = rng.sample(rest, GOLDEN_RANDOM + CALIB_PAIRS)
    golden = near + drawn[:GOLDEN_RANDOM]
    rng.shuffle(golden)
    return Selection([pool[i] for i in golden], [pool[i] for i in drawn[GOLDEN_RANDOM:]])


def select_traffic(pool: Sequence[Pair], special: Sequence[bool], seed: int) -> list[int]:
    """Rows of the held-out split for the traffic, shuffled; a fixed share is special."""
    rng = random.Random(seed)
    wanted = round(TRAFFIC_SPECIAL_SHARE * TRAFFIC_PAIRS)
    rows = rng.sample([i for i in range(len(pool)) if special[i]], wanted)
    rows += rng.sample([i for i in range(len(pool)) if not special[i]], TRAFFIC_PAIRS - wanted)
    rng.shuffle(rows)
    return rows


def select_evaluation(pool: Sequence[Pair], special: Sequence[bool], seed: int) -> list[Pair]:
    """Ordinary pairs of the held-out split that the traffic does not have: what the server judges candidates by."""
    taken = set(select_traffic(pool, special, seed))
    free = [i for i in range(len(pool)) if i not in taken and not special[i] and not _resembles(pool[i])]
    return [pool[i] for i in random.Random(seed + 1).sample(free, EVALUATION_PAIRS)]


def _resembles(pair: Pair) -> bool:
    squeezed = (pair.a + pair.b).replace(" ", "")
    return any(word in squeezed for word in _LOOKALIKES)
