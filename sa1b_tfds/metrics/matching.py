"""Matches predictions with the masks of the ground truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sa1b_tfds.core import extras


class Matches(NamedTuple):
    """The prediction of each of M masks of the ground truth.

    prediction: int64 [M], the index of the mask's prediction, -1 if it has none.
    iou: float64 [M], the IoU of the two, 0 if there is no prediction.
    """

    prediction: np.ndarray
    iou: np.ndarray


def match_best(iou: np.ndarray) -> Matches:
    """Gives each mask the prediction with the largest IoU. Several masks may share a prediction.

    Args:
      iou: float [N, M], of N predictions with M masks: `iou_matrix(predictions, masks)`.

    Returns:
      prediction, int64 [M]: the index of each mask's prediction, -1 if it has none; and iou,
      float64 [M]: the IoU of the two.
    """
    if not len(iou):
        return _none(iou.shape[1])
    best = iou.max(axis=0)
    return Matches(np.where(best > 0, iou.argmax(axis=0), -1), best)


def match_one_to_one(iou: np.ndarray) -> Matches:
    """Gives each prediction to at most one mask, so that the sum of the IoUs is the largest.

    This is the assignment problem (Kuhn 1955); SciPy's `linear_sum_assignment` solves it.

    Args:
      iou: float [N, M], see `match_best`.

    Returns:
      See `match_best`.

    Raises:
      ImportError: if SciPy is missing; names the extra.
    """
    optimize = extras.load("scipy.optimize", "metrics")
    matches = _none(iou.shape[1])
    rows, columns = optimize.linear_sum_assignment(iou, maximize=True)
    touching = iou[rows, columns] > 0  # the assignment also pairs masks that do not meet
    rows, columns = rows[touching], columns[touching]
    matches.prediction[columns] = rows
    matches.iou[columns] = iou[rows, columns]
    return matches


def _none(masks: int) -> Matches:
    return Matches(np.full(masks, -1), np.zeros(masks))
