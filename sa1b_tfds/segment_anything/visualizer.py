"""Draws the masks in `tfds.show_examples`, at the size of the drawing; `register.py` adds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_PIXELS_PER_INCH = 200  # twice what matplotlib draws by default


class MasksVisualizer(tfds.visualization.Visualizer):
    """Draws images with their masks over them, for what has features `image` and `masks`."""

    def match(self, ds_info: tfds.core.DatasetInfo) -> bool:
        from sa1b_tfds.features import RleMasks

        features = ds_info.features
        return (
            isinstance(features, tfds.features.FeaturesDict)
            and {"image", "masks"} <= features.keys()
            and isinstance(features["masks"], RleMasks)
        )

    def show(
        self,
        ds: Any,
        ds_info: tfds.core.DatasetInfo,
        rows: int = 3,
        cols: int = 3,
        plot_scale: float = 3.0,
    ) -> Any:
        """Draws the first rows * cols examples.

        Args:
          ds: examples, not batched. Masks may be decoded, to any size, or left as RLE.
          ds_info: of the dataset.
          rows, cols: of the grid.
          plot_scale: inches an image.

        Returns:
          The matplotlib Figure.
        """
        from sa1b_tfds.core import extras
        from sa1b_tfds.core.text import counted
        from sa1b_tfds.masks import overlay

        # Painting full-size masks takes seconds an image, and is not seen.
        long_side = round(_PIXELS_PER_INCH * plot_scale)

        plt = extras.load("matplotlib.pyplot", "show")
        figure, grid = plt.subplots(
            rows, cols, figsize=(plot_scale * cols, plot_scale * rows), squeeze=False
        )
        for ax in grid.flat:
            ax.set_axis_off()
        for ax, example in zip(grid.flat, tfds.as_numpy(ds.take(rows * cols))):  # noqa: B905
            image = _shrunk(example["image"], long_side)
            masks = _masks_at(example["masks"], image.shape[:2])
            ax.imshow(overlay.paint_masks(masks, image))
            ax.set_title(counted(len(masks), "mask"), fontsize="small")
        plt.show()
        return figure


def _shrunk(image: np.ndarray, long_side: int) -> np.ndarray:
    from PIL import Image

    from sa1b_tfds.examples import jpeg

    if max(image.shape[:2]) <= long_side:
        return image
    return np.asarray(jpeg.resize(Image.fromarray(image), long_side))


def _masks_at(masks: Any, size: tuple[int, int]) -> np.ndarray:
    """Masks as any decoder left them -> [N, H, W] of this size."""
    from sa1b_tfds.masks import rle

    if isinstance(masks, dict):
        return rle.decode_rles(list(masks["counts"]), masks["size"], size)
    rows, columns = (
        rle.sampled(have, side) for side, have in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows[:, None], columns]
