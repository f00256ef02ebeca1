"""Boundary IoU: the IoU of what of two masks lies near their own outlines.

Cheng, Girshick, Dollár, Berg, Kirillov: "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021, with the conventions of the authors' reference code
(github.com/bowenc0221/boundary-iou-api): the width is a share of the image's diagonal, rounded, at
least one pixel; distance is counted in steps to any of the eight neighbours; the image's border is
an outline too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sa1b_tfds import extras
from sa1b_tfds.metrics.iou import as_dense, compute_iou

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
    result = np.zeros(dense.shape, bool)
    window = _window(dense)
    result[window] = _boundary(dense[window], _width(dense.shape, dilation_ratio))
    return result


def compute_boundary_iou(mask1: Any, mask2: Any, dilation_ratio: float = DILATION_RATIO) -> float:
    """The IoU of the boundaries of two masks, each [H, W] or an RLE; 0 if both are empty.

    Raises:
      ValueError: if one is no mask, or their sizes differ.
      ImportError: without SciPy, naming the extra.
    """
    a, b = as_dense(mask1), as_dense(mask2)
    if a.shape != b.shape:
        return compute_iou(a, b)  # says what is wrong
    # All pixels of both are in here, and outside of it is as good as outside of the image.
    window = _window(a | b)
    width = _width(a.shape, dilation_ratio)
    return compute_iou(_boundary(a[window], width), _boundary(b[window], width))


def _width(shape: tuple[int, ...], dilation_ratio: float) -> int:
    return max(1, round(dilation_ratio * math.hypot(*shape)))


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest one with all pixels of the mask; of one pixel if there is none."""
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (slice(s[0], s[-1] + 1) if len(s) else slice(0, 1) for s in spans)
    return rows, columns


def _boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Takes off the pixels whose neighbours, up to `width` steps away, are all in the mask."""
    ndimage = extras.load("scipy.ndimage", "metrics")
    inner = mask.view(np.uint8)
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis, mode="constant", cval=0)
    return mask & (inner == 0)
