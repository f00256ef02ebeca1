"""Intersection over union (IoU) of masks, dense or in the RLE domain.

Two masks without a pixel between them have an IoU of 0, as in pycocotools: there is no agreement to
speak of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sa1b_tfds.masks.forms import as_dense, require_one_size, to_rles


def compute_iou(mask1: Any, mask2: Any) -> float:
    """The IoU of two masks, each [H, W] or an RLE; 0 if both are empty.

    Raises:
      ValueError: if one is no mask, or their sizes differ.
    """
    if isinstance(mask1, Mapping) or isinstance(mask2, Mapping):
        return float(iou_matrix([mask1], [mask2])[0, 0])
    a, b = as_dense(mask1), as_dense(mask2)
    require_one_size(a.shape, b.shape)
    intersection = np.count_nonzero(a & b)
    union = np.count_nonzero(a) + np.count_nonzero(b) - intersection
    return intersection / union if union else 0.0


def iou_matrix(masks1: Any, masks2: Any) -> np.ndarray:
    """The IoU of each of N masks with each of M, float64 [N, M].

    RLEs stay RLEs: no dense mask is made (pycocotools, `rleIou`).

    Args:
      masks1, masks2: arrays [N, H, W] and [M, H, W], sequences of masks [H, W] or RLEs, or columns
        {'size', 'counts'} of RLEs.

    Raises:
      ValueError: if one is no mask, naming its index, or their sizes differ.
    """
    a, b = to_rles(masks1), to_rles(masks2)
    for one in (*a, *b):
        require_one_size((a or b)[0]["size"], one["size"])
    return iou_of_rles(a, b)


def iou_of_rles(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> np.ndarray:
    """`iou_matrix` of checked RLEs of one size."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    return np.asarray(coco_mask.iou(a, b, [0] * len(b)), np.float64)
