"""From the IoU of each mask to the figures of many: means, medians, sizes, intervals."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sa1b_tfds.masks import rle
from sa1b_tfds.masks.forms import to_rles
from sa1b_tfds.metrics.bootstrap import mean_interval
from sa1b_tfds.metrics.boundary import DILATION_RATIO, boundary_ious
from sa1b_tfds.metrics.iou import iou_matrix
from sa1b_tfds.metrics.matching import Matches, match_best, match_one_to_one

# COCO's, by the area of the ground truth in pixels: [from, to).
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
    """Compares predicted masks with the ground truth of the same image, or of the same size.

    Args:
      pred_masks, gt_masks: N and M masks, as `iou_matrix` takes them.
      matching: 'pairs', prediction i belongs to mask i; 'best', each mask takes the best
        prediction; 'one_to_one', each prediction goes to one mask at most.
      dilation_ratio: see `mask_boundary`.
      seed: of the intervals.

    Returns:
      What `summarise` returns. A mask that has no prediction counts with an IoU of 0.

    Raises:
      ValueError: if there is no mask, one is malformed, sizes differ, or pairs are not as many.
      ImportError: without SciPy, naming the extra.
    """
    predictions, truths = to_rles(pred_masks), to_rles(gt_masks)
    if not truths:
        raise ValueError("There is no mask to compare with: gt_masks is empty.")
    if matching == "pairs":
        if len(predictions) != len(truths):
            raise ValueError(
                f"{len(predictions)} predictions and {len(truths)} masks are no pairs: pass"
                " matching='best' or 'one_to_one'."
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
    """The boundary IoU of each of M masks with its prediction, float64 [M]; 0 for none.

    Both are lists of checked RLEs; a mask and its prediction have one size.
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
    """The figures of M masks.

    Args:
      iou, boundary_iou: float [M].
      areas: int [M], of the ground truth, in pixels.
      groups: [M], the image of each; see `mean_interval`.
      seed: of the intervals.

    Returns:
      count, mean_iou, median_iou, mean_boundary_iou, median_boundary_iou;
      mean_iou_interval, mean_boundary_iou_interval: (low, high) at 95 %, None for too few masks;
      by_size: for 'small', 'medium' and 'large' the same without intervals, figures None where
      there is no such mask.
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
