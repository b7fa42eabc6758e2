"""Figures: accuracy, F1, AUC, and the edit distance every model must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jellyfish
import numpy as np
from numpy.typing import NDArray

from address_match_recipe.pairs import Pair

__all__ = ["Figures", "best_threshold", "edit_similarity", "figures", "labels_of", "logistic_fit", "margins"]


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one scorer on n pairs; shares between 0 and 1."""

    n: int
    positives: int
    accuracy: float
    f1: float
    auc: float


def figures(scores: NDArray[np.floating], labels: NDArray[np.int64], threshold: float = 0.0) -> Figures:
    """Accuracy and F1 of `score > threshold`, and the AUC of the scores.

    Args:
        scores: (n,) float, larger means more likely the same place.
        labels: (n,) int64, 0 or 1, both present.
        threshold: Where "same" begins.
    """
    said = scores > threshold
    hits = int(np.sum(said & (labels == 1)))
    f1 = 2 * hits / max(1, int(said.sum()) + int(labels.sum()))
    accuracy = float(np.mean(said == (labels == 1)))
    return Figures(len(labels), int(labels.sum()), accuracy, f1, _auc(scores, labels))


def margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) logit of "same" minus logit of "different"; 0 is the boundary."""
    out: NDArray[np.float32] = logits[:, 1] - logits[:, 0]
    return out


def labels_of(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """(n,) int64 labels."""
    return np.array([pair.label for pair in pairs], np.int64)


def edit_similarity(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """(n,) 1 - Levenshtein distance / longer length, in [0, 1]."""
    return np.array(
        [1 - jellyfish.levenshtein_distance(pair.a, pair.b) / max(len(pair.a), len(pair.b), 1) for pair in pairs]
    )


def best_threshold(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The threshold with the highest accuracy on these very labels."""
    order = np.argsort(scores, kind="stable")
    ordered, sorted_labels = scores[order], labels[order]
    # Threshold at ordered[i]: everything up to i is "different".
    right_below = np.cumsum(sorted_labels == 0)
    right_above = int(labels.sum()) - np.cumsum(sorted_labels == 1)
    last_of_value = np.append(ordered[1:] != ordered[:-1], True)
    totals = np.where(last_of_value, right_below + right_above, -1)
    return float(ordered[int(np.argmax(totals))])


def logistic_fit(margins: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Scale and shift that make a sigmoid of the margins fit the labels best.

    Args:
        margins: (n,) margins of a scorer.
        labels: (n,) int64, 0 or 1, both present.

    Returns:
        (scale, shift) of `scale * margin + shift`. Source: Platt 1999; Newton's method.
    """
    design = np.stack([margins.astype(np.float64), np.ones(len(margins))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (chance - labels)
        curve = (design * (chance * (1 - chance))[:, None]).T @ design
        weights -= np.linalg.solve(curve, slope)
    return float(weights[0]), float(weights[1])


def _auc(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mann-Whitney: the share of (same, different) pairs ranked rightly, ties half."""
    same, different = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    below = np.searchsorted(different, same, side="left")
    not_above = np.searchsorted(different, same, side="right")
    return float((below + not_above).sum() / 2 / (len(same) * len(different)))
