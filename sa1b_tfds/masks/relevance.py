"""Relevance maps, with NumPy: how many masks cover each pixel of an image, and how good they are.

`tf_relevance.py` does the same in TensorFlow. No dense masks are made: the ends of a run add and
subtract its mask's weight, and one sum along the pixels gives the map.

Rounding does not add up in that sum. Each weight is first rounded to a multiple of a power of two,
2 ** -52 of the sum of all weights, so that every addition is exact. A pixel outside all masks is
exactly 0.
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
    """Sums, at each pixel, the weights of the masks that cover it.

    Args:
      masks: [N, H, W]; a sequence of masks [H, W] or RLEs; or columns {'size', 'counts'}, as
        `tfds.decode.SkipDecoding()` gives them.
      weights: float [N], such as the example's predicted_iou. Defaults to 1, which counts masks.
      output_size: (h, w) of the map, sampled at pixel centres as `decode_masks` does. Defaults to
        (H, W).

    Returns:
      float32 [H, W], or [h, w].

    Raises:
      ValueError: if a mask is malformed, sizes differ, a list without masks leaves the size
        unknown, or weights are not N finite numbers.
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
    """-> (float64 [N], the weights as whole numbers that sum to less than 2 ** 53; their unit)."""
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all():
        raise ValueError(f"weights must be {n} finite numbers, one per mask, got {weights}.")
    _, exponent = np.frexp(np.abs(weights).sum())
    unit = np.ldexp(1.0, max(int(exponent), -900) - 52)
    return np.rint(weights / unit), float(unit)
