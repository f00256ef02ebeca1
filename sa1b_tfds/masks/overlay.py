"""Masks -> a picture for people, with NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# 2**64 / golden ratio: its multiples modulo 2**64 are far from each other on the circle of hues.
_GOLDEN_STEP = np.uint64(0x9E3779B97F4A7C15)
_SATURATION = np.array([1.0, 0.55, 1.0])
_VALUE = np.array([1.0, 1.0, 0.65])


def colours(ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Chooses a colour for each id: always the same one, and far from those of neighbouring ids.

    Args:
      ids: N integers, such as the ids of masks.

    Returns:
      uint8 [N, 3], RGB; never black.
    """
    numbers = np.asarray(ids, np.int64).astype(np.uint64)
    hue = (numbers * _GOLDEN_STEP) / 2.0**64 * 6
    tone = (numbers % np.uint64(3)).astype(int)
    # HSV to RGB: each channel is a trapezium over the hue, shifted by a third of the circle.
    wheel = np.abs((hue[:, None] + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    pure = np.clip(wheel, 0, 1)
    saturation, value = _SATURATION[tone, None], _VALUE[tone, None]
    return np.round(255 * value * (1 - saturation * (1 - pure))).astype(np.uint8)


def paint_masks(
    masks: np.ndarray,
    image: np.ndarray | None = None,
    ids: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Paints each mask in its own colour, the largest first, so that no mask hides a smaller one.

    Args:
      masks: [N, H, W], 0 is outside.
      image: uint8 [H, W, 3], painted over with half transparent masks. Defaults to opaque masks on
        black.
      ids: the masks' ids, which choose their `colours`. Defaults to 0 to N - 1.

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
        # Only the mask's box is painted: to go over the whole picture costs far more.
        box = tuple(_span(inside.any(axis=axis)) for axis in (1, 0))
        part, inside = picture[box], inside[box]
        part[inside] = (1 - opacity) * part[inside] + opacity * colour[i]
    return picture.astype(np.uint8)


def _span(used: np.ndarray) -> slice:
    """The slice from the first to the last True."""
    return slice(int(used.argmax()), len(used) - int(used[::-1].argmax()))
