"""Makes `tfds.show_examples` draw the masks.

TFDS has a class for it, `tfds.visualization.Visualizer`, but no way to add one: it goes through a
private list, in which ours comes first. Without that list images appear as TFDS draws them.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


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
        from sa1b_tfds import extras
        from sa1b_tfds.show.axes import show_masks_on_image

        plt = extras.load("matplotlib.pyplot", "show")
        figure, grid = plt.subplots(
            rows, cols, figsize=(plot_scale * cols, plot_scale * rows), squeeze=False
        )
        for ax in grid.flat:
            ax.set_axis_off()
        for ax, example in zip(grid.flat, tfds.as_numpy(ds.take(rows * cols))):  # noqa: B905
            masks = _masks_at(example["masks"], example["image"].shape[:2])
            ids = example.get("annotations", {}).get("id", np.arange(len(masks)))
            show_masks_on_image(example["image"], masks, ax, ids[: len(masks)])
            ax.set_title(f"{len(masks)} masks", fontsize="small")
        plt.show()
        return figure


def _masks_at(masks: Any, size: tuple[int, int]) -> np.ndarray:
    """Masks as any decoder left them -> [N, H, W] of this size."""
    from sa1b_tfds import rle

    if isinstance(masks, dict):
        return rle.decode_rles(list(masks["counts"]), masks["size"], size)
    rows, columns = (
        rle.sampled(have, side) for side, have in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows[:, None], columns]


def register() -> None:
    """Puts ours before those of TFDS."""
    module = importlib.import_module("tensorflow_datasets.core.visualization.show_examples")
    known = getattr(module, "_ALL_VISUALIZERS", None)
    if isinstance(known, list):
        known.insert(0, MasksVisualizer())
