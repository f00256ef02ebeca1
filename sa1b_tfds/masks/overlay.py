"""Masks -> a picture to look at, on NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# 2**64 / golden ratio: its multiples, modulo 2**64, stay far from each other on the hue circle.
_GOLDEN_STEP = np.uint64(0x9E3779B97F4A7C15)
_SATURATION = np.array([1.0, 0.55, 1.0])
_VALUE = np.array([1.0, 1.0, 0.65])


def colours(ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """A colour for each mask: the same for the same id everywhere, and far apart for neighbours.

    Args:
      ids: N integers, such as the masks' ids.

    Returns:
      uint8 [N, 3], RGB; never black.
    """
    numbers = np.asarray(ids, np.int64).astype(np.uint64)
    hue = (numbers * _GOLDEN_STEP) / 2.0**64 * 6
    tone = (numbers % np.uint64(3)).astype(int)
    wheel = np.abs((hue[:, None] + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    pure = np.clip(wheel, 0, 1)
    saturation, value = _SATURATION[tone, None], _VALUE[tone, None]
    return np.round(255 * value * (1 - saturation * (1 - pure))).astype(np.uint8)


def paint_masks(
    masks: np.ndarray,
    image: np.ndarray | None = None,
    ids: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Paints each mask in a colour of its own, the largest first so that none hides a smaller one.

    Args:
      masks: [N, H, W], 0 is outside.
      image: uint8 [H, W, 3] to paint over, half transparent; default: black, opaque.
      ids: of the masks, which choose the `colours`; default: 0 to N - 1.

    Returns:
      uint8 [H, W, 3].
    """
    opacity = 1.0 if image is None else 0.5
    under = np.zeros((*masks.shape[1:], 3), np.uint8) if image is None else image
    picture = under.astype(np.float32)
    colour = colours(np.arange(len(masks)) if ids is None else ids)
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
    for i in np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)]:
        inside = masks[i] != 0
        box = tuple(_span(inside.any(axis=axis)) for axis in (1, 0))  # the rest costs far more
        part, inside = picture[box], inside[box]
        part[inside] = (1 - opacity) * part[inside] + opacity * colour[i]
    return picture.astype(np.uint8)


def _span(used: np.ndarray) -> slice:
    """From the first to the last that is True."""
    return slice(int(used.argmax()), len(used) - int(used[::-1].argmax()))
