"""The metric `detection_agreement` with numpy: the same answers as the device's pure Python, for many boxes.

Property: `detection_agreement(a, b) == wavegate_shared.metrics.score(Metric("detection_agreement"), a, b)`.
"""

from typing import Any

import numpy as np

from wavegate_shared.metrics import BOX_NUMBERS, LEAST_OVERLAP, LEAST_SCORE

__all__ = ["detection_agreement"]

Boxes = np.ndarray[Any, np.dtype[np.float64]]


def detection_agreement(answer: np.ndarray[Any, Any], label: np.ndarray[Any, Any]) -> float:
    """F1 of boxes found again: same class, overlap of 0.5 or more, the surest box first.

    Args:
        answer: (6 k,) x1, y1, x2, y2, score, class of each box; what is left over is ignored.
        label: the same of the boxes to be found.
    """
    got, wanted = _boxes(answer), _boxes(label)
    if not len(got) or not len(wanted):
        return float(len(got) == len(wanted))
    left = np.ones(len(wanted), bool)
    found = 0
    for box in got[np.argsort(-got[:, 4], kind="stable")]:
        overlap = np.where(left, _overlap(box, wanted), -1.0)
        best = int(overlap.argmax())
        if left[best] and overlap[best] >= LEAST_OVERLAP and wanted[best, 5] == box[5]:
            left[best] = False
            found += 1
    return 2 * found / (len(got) + len(wanted))


def _boxes(values: np.ndarray[Any, Any]) -> Boxes:
    flat = np.asarray(values, np.float64).reshape(-1)
    rows = flat[: len(flat) // BOX_NUMBERS * BOX_NUMBERS].reshape(-1, BOX_NUMBERS)
    return rows[rows[:, 4] >= LEAST_SCORE]


def _overlap(box: Boxes, others: Boxes) -> Boxes:
    """Shared area / joint area with each box of the same class, 0 with others."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    apart = (width <= 0) | (height <= 0) | (others[:, 5] != box[5])
    shared = np.where(apart, 0.0, width * height)
    areas = (box[2] - box[0]) * (box[3] - box[1]) + (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    ratio: Boxes = np.divide(shared, areas - shared, out=np.zeros_like(shared), where=~apart)
    return ratio
