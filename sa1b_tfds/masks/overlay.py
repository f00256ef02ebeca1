"""Masks -> a picture for people, with NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# 2**64 / golden ratio: its multiples modulo 2**64 are far from each other on the circle of hues.
_GOLDEN_STEP = np.uint64(0x9E3779B97F4A7C15)
_SATURATION = np.array([1.0, 0.55, 1.0])
_VALUE = np.array([1.0, 1.0, 0.65])
_OPACITY = 0.4  # more hides the photograph, also where masks lie in masks
_OUTLINE_OPACITY = 0.9
_PIXELS_PER_OUTLINE = 600  # of the long side, for each pixel of an outline's width


def colours(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Gives each mask its colour: the same for the same number, far apart for neighbours.

    Args:
      numbers: N integers. A mask's number is its row in the example, so that it has the same
        colour in every picture.

    Returns:
      uint8 [N, 3], RGB; never black.
    """
    numbers = np.asarray(numbers, np.int64).astype(np.uint64)
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
    numbers: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Paints each mask in its colour, the largest first so that none hides a smaller one.

    Args:
      masks: [N, H, W]; 0 is outside.
      image: uint8 [H, W, 3] to blend the masks over, see `layer`. Defaults to black, on which the
        colours are opaque and have no outlines.
      numbers: N integers that choose the `colours`. Defaults to 0 to N - 1.

    Returns:
      uint8 [H, W, 3].
    """
    if image is None:
        return _palette(len(masks), numbers)[_on_top(masks)]
    colour, opacity = np.split(layer(masks, numbers).astype(np.float32), [3], axis=2)
    opacity /= 255
    return np.round(image * (1 - opacity) + colour * opacity).astype(np.uint8)


def layer(masks: np.ndarray, numbers: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Draws the masks and their outlines to lay over an image.

    However many masks lie over each other, the image shows through as if there were one.

    Args:
      masks, numbers: as `paint_masks` takes them.

    Returns:
      uint8 [H, W, 4], RGB and opacity.
    """
    top = _on_top(masks)
    opacity = np.where(top < 0, 0, _OPACITY)
    opacity[_edges(top)] = _OUTLINE_OPACITY
    alpha = np.round(255 * opacity).astype(np.uint8)
    return np.dstack([_palette(len(masks), numbers)[top], alpha])


def _palette(n: int, numbers: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """uint8 [N + 1, 3]: the masks' colours, and at the end, which is at -1, black for no mask."""
    chosen = colours(np.arange(n) if numbers is None else numbers)
    return np.concatenate([chosen, np.zeros((1, 3), np.uint8)])


def _on_top(masks: np.ndarray) -> np.ndarray:
    """int [H, W]: the mask that one sees at each pixel, the smallest there; -1 for none."""
    top = np.full(masks.shape[1:], -1)
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
    for i in np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)]:
        inside = masks[i] != 0
        box = tuple(_span(inside.any(axis=axis)) for axis in (1, 0))  # the rest costs far more
        top[box][inside[box]] = i
    return top


def _edges(top: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels of a mask beside which, to any of the four sides, one sees another."""
    edges = np.zeros(top.shape, bool)
    width = max(1, round(max(top.shape) / _PIXELS_PER_OUTLINE))
    for step in range(1, width + 1):
        for one, other in ((top, edges), (top.T, edges.T)):
            differs = one[step:] != one[:-step]
            other[step:] |= differs
            other[:-step] |= differs
    return edges & (top >= 0)


def _span(used: np.ndarray) -> slice:
    """The slice from the first to the last True."""
    return slice(int(used.argmax()), len(used) - int(used[::-1].argmax()))
