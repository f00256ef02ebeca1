"""The IoU of each mask -> figures of all masks: means, medians, by size, with intervals."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sa1b_tfds.core.text import counted
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.forms import to_rles
from sa1b_tfds.metrics.bootstrap import mean_interval
from sa1b_tfds.metrics.boundary import DILATION_RATIO, boundary_ious
from sa1b_tfds.metrics.iou import iou_matrix
from sa1b_tfds.metrics.matching import Matches, match_best, match_one_to_one

# COCO's sizes, by the area of the ground truth in pixels: [from, to).
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 2**62)}
Matching = Literal["pairs", "best", "one_to_one"]


def evaluate_masks(
    pred_masks: Any,
    gt_masks: Any,
    *,
    matching: Matching = "pairs",
    dilation_ratio: float = DILATION_RATIO,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares predicted masks with the ground truth. All masks have one size.

    Args:
      pred_masks, gt_masks: N and M masks, as `iou_matrix` takes them.
      matching: 'pairs': prediction i belongs to mask i. 'best': each mask takes the prediction that
        fits it best. 'one_to_one': each prediction belongs to at most one mask. Defaults to
        'pairs'.
      dilation_ratio: see `mask_boundary`. Defaults to 0.02.
      seed: the seed of the intervals. Defaults to 0.

    Returns:
      What `summarise` returns. A mask without a prediction has an IoU of 0.

    Raises:
      ValueError: if there is no mask, a mask is malformed, sizes differ, or 'pairs' gets N != M.
      ImportError: if SciPy is missing; names the extra.
    """
    predictions, truths = to_rles(pred_masks), to_rles(gt_masks)
    if not truths:
        raise ValueError("There is no mask to compare with: gt_masks is empty.")
    if matching == "pairs":
        if len(predictions) != len(truths):
            raise ValueError(
                f"{counted(len(predictions), 'prediction')} and {counted(len(truths), 'mask')} do"
                " not make pairs: pass matching='best' or 'one_to_one'."
            )
        own = [iou_matrix([p], [t])[0, 0] for p, t in zip(predictions, truths, strict=True)]
        matches = Matches(np.arange(len(truths)), np.array(own))
    elif matching in _MATCHERS:
        matches = _MATCHERS[matching](iou_matrix(predictions, truths))
    else:
        raise ValueError(f"matching must be one of pairs, {', '.join(_MATCHERS)}; got {matching!r}")
    areas = np.array([rle.area(truth) for truth in truths])
    boundary_iou = matched_boundary_ious(predictions, truths, matches, dilation_ratio)
    return summarise(matches.iou, boundary_iou, areas, seed=seed)


def matched_boundary_ious(
    predictions: list[Any],
    truths: list[Any],
    matches: Matches,
    dilation_ratio: float = DILATION_RATIO,
) -> np.ndarray:
    """float64 [M], the boundary IoU of each mask with its prediction; 0 if it has none.

    Both lists hold checked RLEs; a mask and its prediction have one size.
    """
    matched = np.flatnonzero(matches.prediction >= 0)
    own = [predictions[p] for p in matches.prediction[matched]]
    result = np.zeros(len(truths))
    result[matched] = boundary_ious(own, [truths[i] for i in matched], dilation_ratio)
    return result


def summarise(
    iou: np.ndarray,
    boundary_iou: np.ndarray,
    areas: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Summarises the IoUs of M masks.

    Args:
      iou, boundary_iou: float [M].
      areas: int [M], the areas of the ground truth in pixels.
      groups: [M], the image of each mask, see `mean_interval`. Defaults to a group for each mask.
      seed: the seed of the intervals. Defaults to 0.

    Returns:
      count, mean_iou, median_iou, mean_boundary_iou, median_boundary_iou.
      mean_iou_interval, mean_boundary_iou_interval: (low, high) at 95 %, None for too few masks.
      by_size: the same figures without intervals for 'small', 'medium' and 'large'. A figure is
        None if there is no mask of that size.
    """
    result = _figures(iou, boundary_iou)
    result["mean_iou_interval"] = mean_interval(iou, groups, seed=seed)
    result["mean_boundary_iou_interval"] = mean_interval(boundary_iou, groups, seed=seed)
    result["by_size"] = {}
    for name, (start, stop) in SIZES.items():
        chosen = (areas >= start) & (areas < stop)
        result["by_size"][name] = _figures(iou[chosen], boundary_iou[chosen])
    return result


def _figures(iou: np.ndarray, boundary_iou: np.ndarray) -> dict[str, Any]:
    figures: dict[str, Any] = {"count": len(iou)}
    for name, values in (("iou", iou), ("boundary_iou", boundary_iou)):
        figures[f"mean_{name}"] = float(np.mean(values)) if len(values) else None
        figures[f"median_{name}"] = float(np.median(values)) if len(values) else None
    return figures


_MATCHERS = {"best": match_best, "one_to_one": match_one_to_one}
