"""Masks as callers have them, to be compared or summed -> one form, by `rle`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sa1b_tfds.masks import rle


def as_rles(masks: Any) -> list[dict[str, Any]]:
    """Masks -> checked RLEs in pycocotools' form, {'size': [H, W], 'counts': bytes}.

    Args:
      masks: an array [N, H, W]; a sequence whose items `rle.to_rle` takes, polygons excepted; or an
        example's 'masks'.

    Raises:
      ValueError: if one is no mask, naming its index. Sizes may differ in a sequence.
    """
    if isinstance(masks, rle.Checked | Mapping):
        counts, size = rle.to_checked(masks)
        return [{"size": list(size), "counts": c} for c in counts]
    return rle.to_rles(masks)


def as_dense(mask: Any) -> np.ndarray:
    """One mask, [H, W] as `rle.to_binary` takes it, or an RLE -> bool [H, W].

    Raises:
      ValueError: if it is neither.
    """
    if isinstance(mask, Mapping):
        return rle.decode_rle(mask).astype(bool)
    return rle.to_binary(mask)


def require_one_size(a: Sequence[int], b: Sequence[int]) -> None:
    """Raises a ValueError if two sizes (height, width) differ."""
    if tuple(a) != tuple(b):
        raise ValueError("Masks of {}x{} and {}x{} cannot be compared.".format(*a, *b))
