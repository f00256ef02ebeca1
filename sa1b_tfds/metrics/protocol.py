"""SAM's zero-shot protocol for a single point (Segment Anything, section 7.1 and appendix D.1).

The prompt is one point, the centre of the mask: the pixel that is farthest from its outline. Of the
model's outputs, usually three, the one with the highest score counts ("mIoU"), or the one that
fits the ground truth best ("oracle").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sa1b_tfds.core import extras
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import Example
from sa1b_tfds.masks.forms import as_dense, to_rles
from sa1b_tfds.masks.runs import areas, run_lengths
from sa1b_tfds.metrics.bootstrap import mean_interval
from sa1b_tfds.metrics.iou import iou_matrix

Predict = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]


def center_point(mask: Any) -> tuple[int, int]:
    """The pixel (x, y) that is farthest from what is not in the mask; the first, row by row.

    Distance is Euclidean, and what lies outside of the image is not in the mask.

    Args:
      mask: [H, W] or an RLE.

    Raises:
      ValueError: if the mask is empty.
      ImportError: without SciPy, naming the extra.
    """
    dense = as_dense(mask)
    if not dense.any():
        raise ValueError("An empty mask has no centre.")
    ndimage = extras.load("scipy.ndimage", "metrics")
    # Around its box nothing is in the mask, so that a rim of one pixel stands for all of it.
    rows, columns = (np.flatnonzero(dense.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    box = np.pad(dense[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    distance = ndimage.distance_transform_edt(box)[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return left + int(x), top + int(y)


def single_point_iou(outputs: Any, scores: Any, gt_masks: Any) -> tuple[np.ndarray, np.ndarray]:
    """The IoU of each of N masks with what a model gave for its point.

    Args:
      outputs: K masks for each of N points: bool [N, K, H, W], or N sequences of K masks or RLEs.
      scores: float [N, K], the model's own.
      gt_masks: N masks, as `iou_matrix` takes them.

    Returns:
      float64 [N], of the output with the highest score; float64 [N], of the output that fits best.
    """
    truths = to_rles(gt_masks)
    scores = np.asarray(scores, np.float64)
    if len(outputs) != len(truths) or scores.shape[:1] != (len(truths),):
        raise ValueError(
            f"{len(truths)} masks need outputs and scores for as many points, got {len(outputs)}"
            f" outputs and scores of shape {list(scores.shape)}."
        )
    chosen, oracle = np.zeros(len(truths)), np.zeros(len(truths))
    for i, (own, own_scores, truth) in enumerate(zip(outputs, scores, truths, strict=True)):
        iou = iou_matrix(own, [truth])[:, 0]
        chosen[i], oracle[i] = iou[own_scores.argmax()], iou.max()
    return chosen, oracle


def evaluate_single_point(
    predict: Predict, examples: Iterable[Example], *, seed: int = 0
) -> dict[str, Any]:
    """Runs the protocol.

    Args:
      predict: called with an image uint8 [H, W, 3] and points float32 [N, 2], (x, y) in its pixels,
        one for each mask; returns (outputs, scores) as `single_point_iou` takes them.
      examples: as `parts.read_examples` yields them. Empty masks have no point and are left out.
      seed: of the intervals.

    Returns:
      count, mean_iou, oracle_mean_iou, and mean_iou_interval, oracle_mean_iou_interval, which are
      None for fewer than two images.

    Raises:
      ValueError: if there is no mask, a JPEG does not decode, or what `predict` returns does not
        fit.
    """
    chosen, oracle, image_of = [], [], []
    for number, example in enumerate(examples):
        masks = to_rles(example.masks)
        pixels = areas(run_lengths(*example.masks))
        masks = [mask for mask, area in zip(masks, pixels, strict=True) if area]
        if not masks:
            continue
        pixels = jpeg.decode(example.image)
        if pixels.shape[:2] != example.masks.size:
            raise ValueError(
                "The image of {}x{} is not as large as its masks of {}x{}: evaluate on tars, or"
                " on a config with images as they are.".format(
                    *pixels.shape[:2], *example.masks.size
                )
            )
        points = np.array([center_point(mask) for mask in masks], np.float32)
        ious = single_point_iou(*predict(pixels, points), masks)
        chosen.append(ious[0])
        oracle.append(ious[1])
        image_of += [number] * len(masks)
    if not image_of:
        raise ValueError("There is no mask to evaluate on.")
    result: dict[str, Any] = {"count": len(image_of)}
    for name, values in (("mean_iou", chosen), ("oracle_mean_iou", oracle)):
        iou = np.concatenate(values)
        result[name] = float(iou.mean())
        result[f"{name}_interval"] = mean_interval(iou, image_of, seed=seed)
    return result
