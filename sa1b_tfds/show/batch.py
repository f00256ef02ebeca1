"""A batch as a picture: the images that the model sees, with their masks and prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sa1b_tfds.masks import overlay
from sa1b_tfds.show.seen import Seen, images_of
from sa1b_tfds.show.sheet import grid

_DARK = (20, 20, 20)  # around boxes and points, so that they are seen on every image


def show_batch(
    batch: Any, columns: int = 2, side: int = 640, mask_size: int | None = None
) -> Image.Image:
    """Draws what a dataset of this package gives: a training batch, or images as they are stored.

    Normalisation is undone. Each mask has a colour, which its box and its points share.

    Args:
      batch: of `training_dataset`, in any layout, or of `TransformersCollate`; or an element or a
        batch of `tfds.load` and `read_tars`, with decoded masks; or an item of `SA1BDataset`, or
        `collate` of some. Tensors or arrays. The zeros that `padded_batch` adds are not drawn.
      columns: images in a row.
      side: the longer side of each image in the picture, in pixels.
      mask_size: the config's. Needed only for a batch with masks_as='runs'.

    Returns:
      A PIL image. Notebooks show it; its `save` writes a file.

    Raises:
      ValueError: if it is not such a batch, or its images or masks are not decoded.
    """
    return grid([_drawn(seen, side) for seen in images_of(batch, mask_size)], columns)


def _drawn(seen: Seen, side: int) -> Image.Image:
    height, width = seen.image.shape[:2]
    scale = side / max(height, width)
    size = round(width * scale), round(height * scale)
    image = np.asarray(Image.fromarray(seen.image).resize(size, Image.Resampling.LANCZOS))
    x, y = (
        (np.arange(n) * 2 + 1) * of // (2 * n)
        for n, of in zip(size, seen.masks.shape[:0:-1], strict=True)
    )
    picture = Image.new("RGB", (side, side), "white")
    picture.paste(Image.fromarray(overlay.paint_masks(seen.masks[:, y[:, None], x], image)))
    pen = ImageDraw.Draw(picture)
    colours = [tuple(colour) for colour in overlay.colours(range(len(seen.masks))).tolist()]
    for colour, boxes in zip(colours, seen.boxes * scale, strict=True):
        for x0, y0, x1, y1 in boxes:
            pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_DARK)
            pen.rectangle((x0, y0, x1, y1), outline=colour, width=max(1, side // 320))
    radius = max(3, side // 128)
    for colour, points, labels in zip(colours, seen.points * scale, seen.labels, strict=True):
        for (x, y), label in zip(points, labels, strict=True):
            if label >= 0:
                box = (x - radius, y - radius, x + radius, y + radius)
                pen.ellipse(box, fill=colour if label else _DARK, outline="white", width=2)
    return picture
