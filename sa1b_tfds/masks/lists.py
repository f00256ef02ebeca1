"""A segmentation as nested lists: a mask [H, W], or polygons as COCO's annotations have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sa1b_tfds.masks.runs import check_size

_MAX_SIMPLE = 10  # numbers of a closed polygon whose corners have only two coordinates


def from_lists(lists: Any, size: Sequence[int] | None) -> np.ndarray | dict[str, Any]:
    """Finds out which of the two it is.

    Args:
      lists: rows of a mask, or polygons [x0, y0, x1, y1, ...], whose union is the mask.
      size: (height, width) of the image, if it is known.

    Returns:
      The mask [H, W], its values as they are; or of polygons the RLE that pycocotools makes.

    Raises:
      ValueError: if it is neither, or may be both; the message says what would help.
    """
    try:
        rows = [np.asarray(row) for row in lists]
        values = np.concatenate(rows)
    except (TypeError, ValueError):
        return _from_polygons(lists, size)  # says what is wrong
    lengths = {len(row) for row in rows}
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        return _from_polygons(lists, size)
    distinct = np.unique(values)
    may_be_polygons = all(n >= 6 and n % 2 == 0 for n in lengths) and not (
        len(distinct) <= 2 and max(lengths) > _MAX_SIMPLE
    )
    shape = [len(rows), *lengths]
    may_be_mask = len(shape) == 2 and (size is None or tuple(shape) == check_size(size))
    if may_be_mask and (
        not may_be_polygons or (size is not None and np.isin(distinct, (0, 1)).all())
    ):
        return np.stack(rows)
    if may_be_mask and size is not None:
        raise ValueError(
            f"{shape[0]} lists of {shape[1]} numbers are a mask of the image's size or polygons:"
            " pass a mask as an array, or repeat the last corner of each polygon."
        )
    if not may_be_polygons and len(shape) == 2 and min(shape) > 1:
        raise ValueError(
            f"{shape[0]} lists of {shape[1]} numbers are neither a mask of the image's size"
            f" {size} nor polygons [x0, y0, x1, y1, x2, y2, ...]."
        )
    return _from_polygons(lists, size)


def _from_polygons(polygons: Any, size: Sequence[int] | None) -> dict[str, Any]:
    if size is None:
        raise ValueError("A polygon has no size of its own: pass size=(height, width).")
    height, width = check_size(size)
    try:
        arrays = [np.asarray(polygon, np.float64) for polygon in polygons]
    except (TypeError, ValueError) as e:
        raise ValueError(f"A segmentation is an RLE or a list of polygons: {e}") from e
    for array in arrays:
        if array.ndim != 1 or len(array) < 6 or len(array) % 2 or not np.isfinite(array).all():
            raise ValueError("A polygon is a list [x0, y0, x1, y1, x2, y2, ...] of finite numbers.")
        # pycocotools trusts both: it overflows far outside, and takes memory for every edge pixel.
        corners = array.reshape(-1, 2)
        if np.abs(corners).max() > 2 * max(height, width):
            raise ValueError(f"A polygon reaches far out of the image of {height}x{width}.")
        steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
        if steps.sum() > height * width + 16 * (height + width):
            raise ValueError("A polygon's outline is longer than the image has pixels.")
    if not arrays:
        raise ValueError("A segmentation needs at least one polygon.")
    parts = coco_mask.frPyObjects([array.tolist() for array in arrays], height, width)
    return coco_mask.merge(parts)
