"""SAM's zero-shot protocol for a single point (Segment Anything, section 7.1 and appendix D.1).

The prompt is one point, the centre of the mask: its pixel that is farthest from the outline. A
model returns several masks, usually three. "mIoU" counts the one with the highest score, and
"oracle" the one that fits the ground truth best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sa1b_tfds.core import extras
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import Example
from sa1b_tfds.masks.forms import as_dense, to_rles
from sa1b_tfds.masks.runs import areas, run_lengths
from sa1b_tfds.metrics.bootstrap import mean_interval
from sa1b_tfds.metrics.iou import iou_matrix

Predict = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]


def center_point(mask: Any) -> tuple[int, int]:
    """Finds the pixel of a mask that is farthest from all pixels outside the mask.

    Distance is Euclidean. Pixels beyond the image are outside the mask.

    Args:
      mask: [H, W] or an RLE.

    Returns:
      (x, y) of the pixel; of several, the first row by row.

    Raises:
      ValueError: if the mask is empty.
      ImportError: if SciPy is missing; names the extra.
    """
    dense = as_dense(mask)
    if not dense.any():
        raise ValueError("An empty mask has no centre.")
    ndimage = extras.load("scipy.ndimage", "metrics")
    # Nothing around the mask's box is in the mask, so a rim of one pixel stands for all of it. To
    # transform only the box is much faster.
    rows, columns = (np.flatnonzero(dense.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    box = np.pad(dense[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    distance = ndimage.distance_transform_edt(box)[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return left + int(x), top + int(y)


def single_point_iou(outputs: Any, scores: Any, gt_masks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Computes the IoU of each of N masks with a model's outputs for its point.

    Args:
      outputs: K masks for each of N points: bool [N, K, H, W], or N sequences of K masks or RLEs.
      scores: float [N, K], the model's scores of its outputs.
      gt_masks: N masks, as `iou_matrix` takes them.

    Returns:
      float64 [N] for the output with the highest score, and float64 [N] for the one that fits best.

    Raises:
      ValueError: if there are not as many outputs and scores as masks, or a mask is malformed.
    """
    truths = to_rles(gt_masks)
    scores = np.asarray(scores, np.float64)
    if len(outputs) != len(truths) or scores.shape[:1] != (len(truths),):
        raise ValueError(
            f"Each mask needs outputs and scores for one point: got {counted(len(truths), 'mask')},"
            f" {counted(len(outputs), 'output')} and scores of shape {list(scores.shape)}."
        )
    chosen, oracle = np.zeros(len(truths)), np.zeros(len(truths))
    for i, (own, own_scores, truth) in enumerate(zip(outputs, scores, truths, strict=True)):
        iou = iou_matrix(own, [truth])[:, 0]
        chosen[i], oracle[i] = iou[own_scores.argmax()], iou.max()
    return chosen, oracle


def evaluate_single_point(
    predict: Predict, examples: Iterable[Example], *, seed: int = 0
) -> dict[str, Any]:
    """Runs the protocol on examples.

    Args:
      predict: a function of an image uint8 [H, W, 3] and points float32 [N, 2], (x, y) in its
        pixels, one for each mask. It returns (outputs, scores) as `single_point_iou` takes them.
      examples: what `examples.read_examples` yields. Empty masks have no point and are left out.
      seed: the seed of the intervals. Defaults to 0.

    Returns:
      count, mean_iou, oracle_mean_iou, and mean_iou_interval, oracle_mean_iou_interval, which are
      None for fewer than two images.

    Raises:
      ValueError: if there is no mask, a JPEG does not decode, an image was prepared smaller than
        its masks, or `predict` returns other shapes.
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
                "The image of {}x{} is not as large as its masks of {}x{}: evaluate on tars, or on"
                " the config 'original'.".format(*pixels.shape[:2], *example.masks.size)
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
