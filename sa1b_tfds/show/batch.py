"""A training batch as a picture: the images that the model sees, with its masks and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from sa1b_tfds.masks import overlay
from sa1b_tfds.show.sheet import grid
from sa1b_tfds.training.config import IMAGENET_MEAN, IMAGENET_STD

_DARK = (20, 20, 20)  # around boxes and points, so that they are seen on every image
_MOST_NORMALISED = 3.0  # (1 - mean) / std is less; pixels of 0 to 255 go beyond it


class _Seen(NamedTuple):
    """One image, and its N valid masks with their prompts, in pixels of the image.

    image: uint8 [S, S, 3]. masks: [N, M, M]. boxes: [N, 0 or 1, 4], (x0, y0, x1, y1).
    points: [N, P, 2], (x, y). labels: [N, P], 1 inside, 0 outside, less for no point.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    points: np.ndarray
    labels: np.ndarray


def show_batch(
    batch: Any, columns: int = 2, side: int = 640, mask_size: int | None = None
) -> Image.Image:
    """Draws a batch of `training_dataset`, in any layout, or of `TransformersCollate`.

    Normalisation is undone. Each mask has a colour, which its box and its points share.

    Args:
      batch: in the layout 'raw', 'keras_hub', 'transformers' or 'sam2'; tensors or arrays.
      columns: images in a row.
      side: the side of each image in the picture, in pixels.
      mask_size: the config's. Needed only for a batch with masks_as='runs'.

    Returns:
      A PIL image. Notebooks show it; its `save` writes a file.

    Raises:
      ValueError: if it is not such a batch.
    """
    return grid([_drawn(seen, side) for seen in _images_of(batch, mask_size)], columns)


def _images_of(batch: Any, mask_size: int | None) -> Iterator[_Seen]:
    pair = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, batch)
    if not all(isinstance(part, Mapping) for part in pair):
        raise ValueError("A batch must be a dict or a pair of dicts, as `training_dataset` gives.")
    inputs, targets = pair
    if "img_batch" in inputs:
        return _images_of_sam2(inputs)
    found = {"image", "images", "pixel_values"} & set(inputs)
    if len(found) != 1 or "mask_valid" not in targets:
        raise ValueError(f"This is not a training batch: its keys are {sorted(inputs)}.")
    return _images_of_dicts(found.pop(), inputs, targets, mask_size)


def _images_of_dicts(
    name: str, inputs: Mapping[str, Any], targets: Mapping[str, Any], mask_size: int | None
) -> Iterator[_Seen]:
    """The layouts 'raw' (image), 'keras_hub' (images) and 'transformers' (pixel_values)."""
    pixels = np.asarray(inputs[name])
    if name == "images":
        pixels = pixels.astype(np.float32) * 255
    elif name == "pixel_values":
        pixels = pixels.transpose(0, 2, 3, 1)
    valid = np.asarray(targets["mask_valid"]).astype(bool)
    size, number = valid.shape
    masks = np.asarray(
        targets["masks"] if "masks" in targets else _drawn_runs(targets["runs"], number, mask_size)
    )

    def prompts(names: tuple[str, str], *shape: int) -> np.ndarray:
        """[B, K, *shape]; a layout without masks' axis has one mask an image."""
        values = next((np.asarray(inputs[name]) for name in names if name in inputs), None)
        if values is None or not values.size:
            return np.zeros((size, number, *(max(side, 0) for side in shape)))
        return values.reshape(size, number, *shape)

    boxes = prompts(("boxes", "input_boxes"), -1, 4)
    points = prompts(("points", "input_points"), -1, 2)
    labels = prompts(("labels", "input_labels"), -1)
    for image, of, *rows in zip(pixels, valid, masks, boxes, points, labels, strict=True):
        yield _Seen(_as_bytes(image), *(row[of] for row in rows))


def _images_of_sam2(batch: Mapping[str, Any]) -> Iterator[_Seen]:
    """The layout 'sam2', whose masks lie in one list, and which has no prompts."""
    masks = np.asarray(batch["masks"])[0]
    image_of = np.asarray(batch["obj_to_frame_idx"])[0, :, 1]
    for i, pixels in enumerate(np.asarray(batch["img_batch"])[0]):
        own = masks[image_of == i]
        none = np.zeros((len(own), 0))
        image = _as_bytes(pixels.transpose(1, 2, 0))
        yield _Seen(image, own, none[..., None], none[..., None], none)


def _drawn_runs(runs: Any, number: int, mask_size: int | None) -> np.ndarray:
    from sa1b_tfds.masks.tf_rasterize import rasterize_runs

    if mask_size is None:
        raise ValueError("The batch has runs in place of masks: pass the config's mask_size.")
    return rasterize_runs(runs, number, (mask_size, mask_size)).numpy()


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    """[S, S, 3], normalised or of 0 to 255 -> uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float32)
    if pixels.max(initial=0) <= _MOST_NORMALISED:
        pixels = (pixels * IMAGENET_STD + IMAGENET_MEAN) * 255
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _drawn(seen: _Seen, side: int) -> Image.Image:
    image = np.asarray(Image.fromarray(seen.image).resize((side, side), Image.Resampling.LANCZOS))
    nearest = (np.arange(side) * 2 + 1) * seen.masks.shape[-1] // (2 * side)
    picture = Image.fromarray(overlay.paint_masks(seen.masks[:, nearest[:, None], nearest], image))
    pen, scale = ImageDraw.Draw(picture), side / len(seen.image)
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
