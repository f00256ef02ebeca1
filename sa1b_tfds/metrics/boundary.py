"""Boundary IoU: the IoU of the pixels of two masks that are near their own outlines.

Source: Cheng, Girshick, Dollár, Berg, Kirillov: "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation", CVPR 2021. The conventions are those of the authors' reference code
(github.com/bowenc0221/boundary-iou-api). The width is a share of the image's diagonal, rounded, and
at least one pixel. Distance counts steps to any of the eight neighbours. The image's border is an
outline as well.
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
    """Finds the pixels of a mask that are near its outline.

    Args:
      mask: [H, W] or an RLE.
      dilation_ratio: how near, as a share of the image's diagonal. Defaults to 0.02.

    Returns:
      bool [H, W].

    Raises:
      ImportError: if SciPy is missing; names the extra.
    """
    dense = as_dense(mask)
    return _boundary(dense, _width(dense.shape, dilation_ratio))


def compute_boundary_iou(mask1: Any, mask2: Any, dilation_ratio: float = DILATION_RATIO) -> float:
    """Computes the IoU of the boundaries of two masks.

    Args:
      mask1, mask2: each [H, W] or an RLE.
      dilation_ratio: see `mask_boundary`. Defaults to 0.02.

    Returns:
      The boundary IoU; 0 if a mask is empty.

    Raises:
      ValueError: if a mask is malformed, or their sizes differ.
      ImportError: if SciPy is missing; names the extra.
    """
    a, b = to_rles([mask1, mask2])
    require_one_size(a["size"], b["size"])
    return float(boundary_ious([a], [b], dilation_ratio)[0])


def boundary_ious(
    a: Sequence[dict[str, Any]],
    b: Sequence[dict[str, Any]],
    dilation_ratio: float = DILATION_RATIO,
) -> np.ndarray:
    """float64 [N], `compute_boundary_iou` of N pairs of checked RLEs; a pair has one size."""
    extras.load("scipy.ndimage", "metrics")  # thin masks need no SciPy; the error comes always
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
    """N masks of one size: height, runs, and boxes int64 [N, 4] as `runs.bboxes` returns them."""

    height: int
    runs: Runs
    boxes: np.ndarray

    @classmethod
    def of(cls, counts: Sequence[bytes], size: Sequence[int]) -> _Masks:
        runs = run_lengths(counts, size)
        return cls(size[0], runs, bboxes(runs, size))

    def is_thin(self, i: int, width: int) -> bool:
        """Whether mask i is all boundary, because its box is less than two boundaries wide."""
        return min(self.boxes[i, 2:]) < 2 * width

    def boundary(self, i: int, rows: slice, columns: slice, width: int) -> np.ndarray:
        """bool [rows, columns], the boundary of mask i, which is inside these rows and columns."""
        # Runs are decoded for these columns only: the ends are clipped to them.
        lengths = self.runs.lengths[slice(*self.runs.splits[i : i + 2])]
        start, stop = columns.start * self.height, columns.stop * self.height
        ends = np.clip(np.cumsum(lengths), start, stop)
        is_one = np.arange(len(lengths)) % 2 == 1
        mask = np.repeat(is_one, np.diff(ends, prepend=start)).reshape(-1, self.height).T[rows]
        return mask if self.is_thin(i, width) else _boundary(mask, width)


def _iou(a: _Masks, b: _Masks, i: int, width: int) -> float:
    """The boundary IoU of pair i, from the part of the image that holds both masks.

    Pixels outside that part are in neither mask, just as pixels outside the image.
    """
    x, y, w, h = np.stack([a.boxes[i], b.boxes[i]], axis=1)
    rows, columns = slice(y.min(), (y + h).max() + 1), slice(x.min(), (x + w).max() + 1)
    return compute_iou(*(masks.boundary(i, rows, columns, width) for masks in (a, b)))


def _width(size: Sequence[int], dilation_ratio: float) -> int:
    return max(1, round(dilation_ratio * math.hypot(*size)))


def _boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Removes the pixels whose neighbours up to `width` steps away are all in the mask."""
    ndimage = extras.load("scipy.ndimage", "metrics")
    # Eroding `width` times by 3 x 3 equals a minimum over a square, which is a minimum per axis.
    inner = mask.astype(np.uint8)
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis, mode="constant", cval=0)
    return mask & (inner == 0)
