"""Boundary IoU: the IoU of what of two masks lies near their own outlines.

Cheng, Girshick, Dollár, Berg, Kirillov: "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021, with the conventions of the authors' reference code
(github.com/bowenc0221/boundary-iou-api): the width is a share of the image's diagonal, rounded, at
least one pixel; distance is counted in steps to any of the eight neighbours; the image's border is
an outline too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sa1b_tfds.core import extras
from sa1b_tfds.masks.forms import as_dense, require_one_size, to_rles
from sa1b_tfds.masks.runs import Runs, bboxes, run_lengths
from sa1b_tfds.metrics.iou import compute_iou, iou_of_rles

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
    a, b = to_rles([mask1, mask2])
    require_one_size(a["size"], b["size"])
    return float(boundary_ious([a], [b], dilation_ratio)[0])


def boundary_ious(
    a: Sequence[dict[str, Any]],
    b: Sequence[dict[str, Any]],
    dilation_ratio: float = DILATION_RATIO,
) -> np.ndarray:
    """`compute_boundary_iou` of N pairs of checked RLEs, each pair of one size: float64 [N]."""
    extras.load("scipy.ndimage", "metrics")  # thin masks alone would do without
    result = np.zeros(len(a))
    places_of: dict[tuple[int, ...], list[int]] = {}
    for place, mask in enumerate(a):
        places_of.setdefault(tuple(mask["size"]), []).append(place)
    for size, places in places_of.items():
        one, other = (_Masks.of([masks[i]["counts"] for i in places], size) for masks in (a, b))
        width = _width(size, dilation_ratio)
        for number, i in enumerate(places):
            if one.is_thin(number, width) and other.is_thin(number, width):
                result[i] = iou_of_rles([a[i]], [b[i]])[0, 0]
            else:
                result[i] = _iou(one, other, number, width)
    return result


class _Masks(NamedTuple):
    """N masks of one size: height, runs, boxes int64 [N, 4] as `runs.bboxes` has them."""

    height: int
    runs: Runs
    boxes: np.ndarray

    @classmethod
    def of(cls, counts: Sequence[bytes], size: Sequence[int]) -> _Masks:
        runs = run_lengths(counts, size)
        return cls(size[0], runs, bboxes(runs, size))

    def is_thin(self, i: int, width: int) -> bool:
        """Whether all of mask i is boundary, as nothing as wide as two boundaries fits into it."""
        return min(self.boxes[i, 2:]) < 2 * width

    def boundary(self, i: int, rows: slice, columns: slice, width: int) -> np.ndarray:
        """bool [rows, columns], which hold all of mask i."""
        lengths = self.runs.lengths[slice(*self.runs.splits[i : i + 2])]
        start, stop = columns.start * self.height, columns.stop * self.height
        ends = np.clip(np.cumsum(lengths), start, stop)
        is_one = np.arange(len(lengths)) % 2 == 1
        mask = np.repeat(is_one, np.diff(ends, prepend=start)).reshape(-1, self.height).T[rows]
        return mask if self.is_thin(i, width) else _boundary(mask, width)


def _iou(a: _Masks, b: _Masks, i: int, width: int) -> float:
    """The boundary IoU of pair i. Only the common box is decoded.

    All pixels of both are in there, and outside of it is as good as outside of the image.
    """
    x, y, w, h = np.stack([a.boxes[i], b.boxes[i]], axis=1)
    rows, columns = slice(y.min(), (y + h).max() + 1), slice(x.min(), (x + w).max() + 1)
    return compute_iou(*(masks.boundary(i, rows, columns, width) for masks in (a, b)))


def _width(size: Sequence[int], dilation_ratio: float) -> int:
    return max(1, round(dilation_ratio * math.hypot(*size)))


def _boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Takes off the pixels whose neighbours, up to `width` steps away, are all in the mask."""
    ndimage = extras.load("scipy.ndimage", "metrics")
    inner = mask.astype(np.uint8)
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis, mode="constant", cval=0)
    return mask & (inner == 0)
