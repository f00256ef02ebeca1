"""Boundary IoU: the IoU of what of two masks lies near their own outlines.

Cheng, Girshick, Dollár, Berg, Kirillov: "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021, with the conventions of the authors' reference code
(github.com/bowenc0221/boundary-iou-api): the width is a share of the image's diagonal, rounded, at
least one pixel; distance is counted in steps to any of the eight neighbours; the image's border is
an outline too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sa1b_tfds import extras, rle
from sa1b_tfds.mask_forms import as_dense, as_rles, require_one_size
from sa1b_tfds.metrics.iou import compute_iou

DILATION_RATIO = 0.02


def mask_boundary(mask: Any, dilation_ratio: float = DILATION_RATIO) -> np.ndarray:
    """The pixels of a mask that lie within a width of its outline.

    Args:
      mask: [H, W] or an RLE.
      dilation_ratio: the width as a share of the image's diagonal.

    Returns:
      bool [H, W].

    Raises:
      ImportError: without SciPy, naming the extra.
    """
    dense = as_dense(mask)
    return _boundary(dense, _width(dense.shape, dilation_ratio))


def compute_boundary_iou(mask1: Any, mask2: Any, dilation_ratio: float = DILATION_RATIO) -> float:
    """The IoU of the boundaries of two masks, each [H, W] or an RLE; 0 if one is empty.

    Raises:
      ValueError: if one is no mask, or their sizes differ.
      ImportError: without SciPy, naming the extra.
    """
    a, b = as_rles([mask1, mask2])
    require_one_size(a["size"], b["size"])
    return boundary_iou_of_rles(a, b, dilation_ratio)


def boundary_iou_of_rles(
    a: dict[str, Any], b: dict[str, Any], dilation_ratio: float = DILATION_RATIO
) -> float:
    """`compute_boundary_iou` of checked RLEs of one size. Only their common box is decoded."""
    size = a["size"]
    runs = rle.run_lengths([a["counts"], b["counts"]], size)
    if not rle.areas(runs).all():
        return 0.0
    x, y, w, h = rle.bboxes(runs, size).T
    rows, columns = slice(y.min(), (y + h).max() + 1), slice(x.min(), (x + w).max() + 1)
    width = _width(size, dilation_ratio)
    # All pixels of both are in here, and outside of it is as good as outside of the image.
    boundaries = (
        _boundary(_columns(runs.lengths[start:stop], size[0], columns)[rows], width)
        for start, stop in itertools.pairwise(runs.splits)
    )
    return compute_iou(*boundaries)


def _width(size: Sequence[int], dilation_ratio: float) -> int:
    return max(1, round(dilation_ratio * math.hypot(*size)))


def _columns(lengths: np.ndarray, height: int, columns: slice) -> np.ndarray:
    """Some columns of the mask with these runs, bool [H, columns]."""
    start, stop = columns.start * height, columns.stop * height
    ends = np.clip(np.cumsum(lengths), start, stop)
    is_one = np.arange(len(lengths)) % 2 == 1
    return np.repeat(is_one, np.diff(ends, prepend=start)).reshape(-1, height).T


def _boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Takes off the pixels whose neighbours, up to `width` steps away, are all in the mask."""
    ndimage = extras.load("scipy.ndimage", "metrics")
    inner = mask.astype(np.uint8)
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis, mode="constant", cval=0)
    return mask & (inner == 0)
