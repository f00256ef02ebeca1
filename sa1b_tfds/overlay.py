"""Masks -> a picture to look at, on NumPy."""

from __future__ import annotations

import numpy as np

_GOLDEN_RATIO = 0.6180339887498949


def paint_masks(masks: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
    """Paints each mask in a colour of its own, the largest first so that none hides a smaller one.

    Args:
      masks: [N, H, W], 0 is outside.
      image: uint8 [H, W, 3] to paint over, half transparent; default: black, opaque.

    Returns:
      uint8 [H, W, 3].
    """
    opacity = 1.0 if image is None else 0.5
    under = np.zeros((*masks.shape[1:], 3), np.uint8) if image is None else image
    picture = under.astype(np.float32)
    for i in np.argsort(-np.count_nonzero(masks, axis=(1, 2)), kind="stable"):
        inside = masks[i] != 0
        picture[inside] = (1 - opacity) * picture[inside] + opacity * _colour(i)
    return picture.astype(np.uint8)


def _colour(index: int) -> np.ndarray:
    """RGB of 0 to 255; steps of the golden ratio around the hue circle keep neighbours apart."""
    hue = index * _GOLDEN_RATIO * 6 + np.array([0.0, 4.0, 2.0])
    return np.clip(np.abs(hue % 6 - 3) - 1, 0, 1).astype(np.float32) * 255
