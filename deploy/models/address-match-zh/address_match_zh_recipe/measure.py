"""Figures: accuracy and AUC, over all pairs and by what a negative differs in; and the edit distance to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jellyfish
import numpy as np
from numpy.typing import NDArray

from address_match_zh_recipe.pairs import KINDS, Pair

__all__ = ["Figures", "best_shift", "by_kind", "edit_similarity", "figures", "labels_of", "margins"]


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one scorer on n pairs; shares between 0 and 1."""

    n: int
    accuracy: float
    auc: float


def labels_of(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """(n,) int64 labels."""
    return np.array([pair.label for pair in pairs], np.int64)


def margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) logit of "same" minus logit of "different"; 0 is the boundary."""
    out: NDArray[np.float32] = logits[:, 1] - logits[:, 0]
    return out


def edit_similarity(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """(n,) 1 - Levenshtein distance / longer length, in [0, 1]."""
    return np.array(
        [1 - jellyfish.levenshtein_distance(pair.a, pair.b) / max(len(pair.a), len(pair.b)) for pair in pairs]
    )


def figures(scores: NDArray[np.floating], labels: NDArray[np.int64], threshold: float = 0.0) -> Figures:
    """Accuracy of `score > threshold`, and the share of (same, different) pairs ranked rightly, ties half."""
    same, different = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    wins = np.searchsorted(different, same, "left") + np.searchsorted(different, same, "right")
    auc = float(wins.sum() / 2 / (len(same) * len(different)))
    return Figures(len(labels), float(np.mean((scores > threshold) == (labels == 1))), auc)


def by_kind(pairs: Sequence[Pair], scores: NDArray[np.floating]) -> list[tuple[str, int, float, float]]:
    """(kind, negatives of it, share answered "different", AUC against all positives); "same" first, without AUC."""
    kinds, labels = np.array([pair.kind for pair in pairs]), labels_of(pairs)
    positive = kinds == "same"
    rows = [("same", int(positive.sum()), float(np.mean(scores[positive] > 0)), float("nan"))]
    for kind in KINDS:
        chosen = kinds == kind
        auc = figures(scores[positive | chosen], labels[positive | chosen]).auc
        rows.append((kind, int(chosen.sum()), float(np.mean(scores[chosen] <= 0)), auc))
    return rows


def best_shift(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The threshold with the highest accuracy on these very labels."""
    order = np.argsort(scores, kind="stable")
    right = np.cumsum(labels[order] == 0) + labels.sum() - np.cumsum(labels[order] == 1)
    last = np.append(scores[order][1:] != scores[order][:-1], True)
    return float(scores[order][int(np.argmax(np.where(last, right, -1)))])
