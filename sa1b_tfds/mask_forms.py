"""The forms in which callers hand over predicted masks -> one form, checked.

What is to be stored is `rle.to_checked`'s, which is stricter (one size) and takes more (polygons).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sa1b_tfds import rle


def as_rles(masks: Any) -> list[dict[str, Any]]:
    """Masks -> checked RLEs in pycocotools' form, {'size': [H, W], 'counts': bytes}.

    Args:
      masks: an array [N, H, W], or a sequence of masks [H, W] or RLEs, or an example's 'masks'.

    Raises:
      ValueError: if one is no mask, naming its index. Sizes may differ.
    """
    if isinstance(masks, rle.Checked):
        return [{"size": list(masks.size), "counts": c} for c in masks.counts]
    result = []
    for i, mask in enumerate(masks):
        try:
            result.append(_as_rle(mask))
        except ValueError as e:
            raise ValueError(f"mask {i}: {e}") from e
    return result


def as_dense(mask: Any) -> np.ndarray:
    """One mask, [H, W] of bool or 0 and 1, or an RLE -> bool [H, W].

    Raises:
      ValueError: if it is neither.
    """
    if isinstance(mask, Mapping):
        return rle.decode_rle(mask).astype(bool)
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"A mask must have the shape [H, W], got {list(mask.shape)}.")
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise ValueError(
            "A mask of floats must hold only 0 and 1: compare logits or probabilities with a"
            " threshold first."
        )
    return mask.astype(bool)


def _as_rle(mask: Any) -> dict[str, Any]:
    return rle.to_rle(mask) if isinstance(mask, Mapping) else rle.encode_mask(as_dense(mask))


def require_one_size(a: Sequence[int], b: Sequence[int]) -> None:
    """Raises a ValueError if two sizes (height, width) differ."""
    if tuple(a) != tuple(b):
        raise ValueError("Masks of {}x{} and {}x{} cannot be compared.".format(*a, *b))
