"""Relevance maps: how many masks cover each pixel of an image, and how good they are. On NumPy.

In TensorFlow: `tf_relevance.py`. No dense masks are made: a run's ends add and subtract its mask's
weight, and one sum along the pixels gives the map.

Both are exact to a rounding: weights are taken as multiples of a power of two, 2 ** -52 of their
sum, so that what is added is subtracted again to the bit, and no pixel outside of all masks holds
more than 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sa1b_tfds.masks import rle
from sa1b_tfds.masks.forms import to_checked
from sa1b_tfds.masks.runs import check_size, run_lengths


def relevance_map(
    masks: Any, weights: Any = None, output_size: Sequence[int] | None = None
) -> np.ndarray:
    """The sum of the weights of the masks that cover each pixel.

    Args:
      masks: [N, H, W]; a sequence of masks [H, W] or RLEs; or columns {'size', 'counts'}, as
        `tfds.decode.SkipDecoding()` gives them.
      weights: float [N], such as its predicted_iou; default: 1, which counts masks.
      output_size: (h, w), sampled at pixel centres as `decode_masks` does; default: (H, W).

    Returns:
      float32 [H, W], or [h, w].

    Raises:
      ValueError: if a mask is malformed, sizes differ, there is none to tell the size, or weights
        are not N finite numbers.
    """
    counts, (height, width) = to_checked(masks)
    units, unit = _units(weights, len(counts))
    runs = run_lengths(counts, (height, width))
    mask = runs.mask()
    ends = np.cumsum(runs.lengths) - mask * (height * width)
    steps = np.where(runs.is_one(), -units[mask], units[mask])
    cover = np.cumsum(np.bincount(ends, steps, minlength=height * width + 1)[:-1])
    cover = cover.reshape(width, height).T
    if output_size is not None:
        h, w = check_size(output_size, "output_size")
        cover = cover[rle.sampled(height, h)][:, rle.sampled(width, w)]
    return np.ascontiguousarray(cover * unit, np.float32)


def _units(weights: Any, n: int) -> tuple[np.ndarray, float]:
    """-> (float64 [N], whole numbers that sum to less than 2 ** 53; what 1 of them is)."""
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all():
        raise ValueError(f"weights must be {n} finite numbers, one a mask, got {weights}.")
    _, exponent = np.frexp(np.abs(weights).sum())
    unit = np.ldexp(1.0, max(int(exponent), -900) - 52)
    return np.rint(weights / unit), float(unit)
