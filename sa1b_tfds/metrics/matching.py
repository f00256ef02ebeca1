"""Which prediction belongs to which mask of the ground truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sa1b_tfds.core import extras


class Matches(NamedTuple):
    """For each of M masks of the ground truth:

    prediction: int64 [M], the index of its prediction, -1 for none.
    iou: float64 [M], their IoU, 0 for none.
    """

    prediction: np.ndarray
    iou: np.ndarray


def match_best(iou: np.ndarray) -> Matches:
    """Each mask takes the prediction with the largest IoU, which several may take.

    Args:
      iou: float [N, M], of N predictions with M masks, as `iou_matrix(predictions, masks)`.
    """
    if not len(iou):
        return _none(iou.shape[1])
    best = iou.max(axis=0)
    return Matches(np.where(best > 0, iou.argmax(axis=0), -1), best)


def match_one_to_one(iou: np.ndarray) -> Matches:
    """Each prediction goes to one mask at most, so that the sum of the IoUs is the largest.

    This is the assignment problem (Kuhn 1955), solved by SciPy's `linear_sum_assignment`.

    Args:
      iou: float [N, M], as for `match_best`.

    Raises:
      ImportError: without SciPy, naming the extra.
    """
    optimize = extras.load("scipy.optimize", "metrics")
    matches = _none(iou.shape[1])
    rows, columns = optimize.linear_sum_assignment(iou, maximize=True)
    touching = iou[rows, columns] > 0
    rows, columns = rows[touching], columns[touching]
    matches.prediction[columns] = rows
    matches.iou[columns] = iou[rows, columns]
    return matches


def _none(masks: int) -> Matches:
    return Matches(np.full(masks, -1), np.zeros(masks))
