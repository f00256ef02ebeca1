"""Draws on matplotlib's axes, with the functions that the notebooks of SAM have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sa1b_tfds.core import extras
from sa1b_tfds.core.text import counted
from sa1b_tfds.masks import overlay, rle
from sa1b_tfds.masks.forms import to_checked

_BLUE = (30, 144, 255)
_OPACITY = 0.6


def show_mask(mask: Any, ax: Any, random_color: bool = False) -> None:
    """Draws one mask over what `ax` shows, as in the notebooks of SAM.

    Args:
      mask: [H, W], or [1, H, W] as a model returns it; nonzero is inside.
      ax: a matplotlib Axes.
      random_color: whether to use another colour at each call. Defaults to False: blue.

    Raises:
      ValueError: if `mask` is not one mask.
    """
    mask = np.asarray(mask)
    if mask.ndim < 2 or mask.size != mask.shape[-2] * mask.shape[-1]:
        raise ValueError(f"show_mask takes one mask [H, W], got the shape {list(mask.shape)}.")
    colour = np.random.default_rng().integers(0, 256, 3) if random_color else _BLUE
    layer = np.zeros((*mask.shape[-2:], 4), np.uint8)
    layer[mask.reshape(mask.shape[-2:]) != 0] = (*colour, round(255 * _OPACITY))
    ax.imshow(layer)


def show_masks_on_image(
    image: Any, masks: Any, ax: Any = None, numbers: Sequence[int] | np.ndarray | None = None
) -> Any:
    """Shows an image with all of its masks over it, the largest first.

    Args:
      image: uint8 [H, W, 3].
      masks: [N, H, W], an array or a list of N masks; what is not zero is inside. Or their RLEs, as
        columns {'size', 'counts'}.
      ax: a matplotlib Axes; default: the current one.
      numbers: N integers that choose the colours, such as the masks' rows in the example if only
        some of them are shown. Defaults to 0 to N - 1.

    Returns:
      The Axes.

    Raises:
      ImportError: if matplotlib is not installed.
      ValueError: if the masks are not [N, H, W] of the image's size.
    """
    plt = extras.load("matplotlib.pyplot", "show")
    image = np.asarray(image)
    if isinstance(masks, Mapping | rle.Checked):
        masks = rle.decode_rles(*to_checked(masks))
    masks = np.asarray(masks) if len(masks) else np.zeros((0, *image.shape[:2]), bool)
    if image.ndim != 3 or masks.shape[1:] != image.shape[:2]:
        raise ValueError(
            f"masks must be [N, H, W] of the image's size, got {list(masks.shape)} for an image of"
            f" the shape {list(image.shape)}."
        )
    ax = plt.gca() if ax is None else ax
    ax.imshow(overlay.paint_masks(masks, image, numbers))
    ax.set_axis_off()
    return ax


def show_box(box: Any, ax: Any) -> None:
    """Draws a box, as in the notebooks of SAM.

    Args:
      box: (x_min, y_min, x_max, y_max) in pixels.
      ax: a matplotlib Axes.
    """
    patches = extras.load("matplotlib.patches", "show")
    x_min, y_min, x_max, y_max = (float(side) for side in np.asarray(box))
    ax.add_patch(
        patches.Rectangle(
            (x_min, y_min), x_max - x_min, y_max - y_min, fill=False, edgecolor="lime", linewidth=2
        )
    )


def show_points(coords: Any, labels: Any, ax: Any, marker_size: float = 375) -> None:
    """Draws points as stars: green for label 1 (inside), red for label 0, as in SAM's notebooks.

    Args:
      coords: [P, 2], (x, y) in pixels.
      labels: [P]. Points with other labels, such as the padding -1, are left out.
      ax: a matplotlib Axes.
      marker_size: the area of a star in square points. Defaults to 375.

    Raises:
      ValueError: if there is not one label for each point.
    """
    coords, labels = np.asarray(coords).reshape(-1, 2), np.asarray(labels).reshape(-1)
    if len(coords) != len(labels):
        raise ValueError(
            f"Each point needs a label: got {counted(len(coords), 'point')} and"
            f" {counted(len(labels), 'label')}."
        )
    for label, colour in ((1, "green"), (0, "red")):
        x, y = coords[labels == label].T
        ax.scatter(x, y, color=colour, marker="*", s=marker_size, edgecolor="white", linewidth=1.25)
