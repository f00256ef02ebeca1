"""A batch of any kind -> its images, each with its masks and prompts, in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sa1b_tfds.training.config import IMAGENET_MEAN, IMAGENET_STD

_MOST_NORMALISED = 3.0  # (1 - mean) / std is less; pixels of 0 to 255 go beyond it


class Seen(NamedTuple):
    """One image, and its N valid masks with their prompts, in pixels of the image.

    image: uint8 [H, W, 3]. masks: [N, h, w]. boxes: [N, 0 or 1, 4], (x0, y0, x1, y1).
    points: [N, P, 2], (x, y). labels: [N, P], 1 inside, 0 outside, less for no point.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    points: np.ndarray
    labels: np.ndarray


def images_of(batch: Any, mask_size: int | None) -> Iterator[Seen]:
    """Yields the images of a batch, in any of the forms that `show_batch` takes."""
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    if len(parts) == 3 and hasattr(parts[0], "__getitem__"):
        return _images_of_items(*parts)
    if len(parts) not in (1, 2) or not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(
            "A batch must be a dict or a pair of dicts, as `training_dataset` gives, or what"
            " `tfds.load` or SA1BDataset gives."
        )
    inputs, targets = parts[0], parts[-1]
    if "annotations" in inputs:
        return _images_of_elements(inputs)
    if "img_batch" in inputs:
        return _images_of_sam2(inputs)
    found = {"image", "images", "pixel_values"} & set(inputs)
    if len(found) != 1 or ("masks" in targets) > ("mask_valid" in targets):
        raise ValueError(f"This is not a training batch: its keys are {sorted(inputs)}.")
    return _images_of_dicts(found.pop(), inputs, targets, mask_size)


def _images_of_dicts(
    name: str, inputs: Mapping[str, Any], targets: Mapping[str, Any], mask_size: int | None
) -> Iterator[Seen]:
    """The layouts 'raw' (image), 'keras_hub' (images) and 'transformers' (pixel_values)."""
    pixels = np.asarray(inputs[name])
    if name == "images":
        pixels = pixels.astype(np.float32) * 255
    elif name == "pixel_values":
        pixels = pixels.transpose(0, 2, 3, 1)
    if "mask_valid" not in targets:  # masks_per_image=0
        none = np.zeros((0, 1, 1))
        yield from (Seen(_as_bytes(image), none, none, none, none[..., 0]) for image in pixels)
        return
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
        yield Seen(_as_bytes(image), *(row[of] for row in rows))


def _images_of_sam2(batch: Mapping[str, Any]) -> Iterator[Seen]:
    """The layout 'sam2', whose masks lie in one list, and which has no prompts."""
    masks = np.asarray(batch["masks"])[0]
    image_of = np.asarray(batch["obj_to_frame_idx"])[0, :, 1]
    for i, pixels in enumerate(np.asarray(batch["img_batch"])[0]):
        own = masks[image_of == i]
        none = np.zeros((len(own), 0))
        image = _as_bytes(pixels.transpose(1, 2, 0))
        yield Seen(image, own, none[..., None], none[..., None], none)


def _images_of_elements(batch: Mapping[str, Any]) -> Iterator[Seen]:
    """What `tfds.load` and `read_tars` give: one element, or a batch, with padding or without."""
    if isinstance(batch["masks"], Mapping) or np.asarray(batch["image"]).dtype == object:
        raise ValueError(
            "The images or masks are not decoded: load them without SkipDecoding(), or with"
            " decode_masks_to(size=(256, 256))."
        )
    columns = batch["annotations"]
    names = ("bbox", "point_coords")
    parts = [np.asarray(x) for x in (batch["image"], batch["masks"], *(columns[n] for n in names))]
    if parts[0].ndim == 3:
        parts = [part[None] for part in parts]
    is_padded = len(parts[0]) > 1
    for image, masks, box, point in zip(*parts, strict=True):
        if is_padded:
            image, masks = _without_padding(image, masks)
        height, width = image.shape[:2]
        scale = np.array((width, height, width, height))
        number = min(len(masks), len(box))
        masks, box, point = masks[:number], box[:number, [1, 0, 3, 2]] * scale, point[:number]
        yield _shown(image, masks, box, point)


def _without_padding(image: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts off the zeros at the bottom and right, which `padded_batch` adds to smaller images.

    It adds them to masks of the images' size as well; masks of one size stay as they are.
    """
    rows, columns = (np.flatnonzero(image.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    if not len(rows):
        return image, masks
    height, width = rows[-1] + 1, columns[-1] + 1
    if masks.shape[1:] == image.shape[:2]:
        masks = masks[:, :height, :width]
    return image[:height, :width], masks


def _images_of_items(image: Any, masks: Any, metadata: Any) -> Iterator[Seen]:
    """What SA1BDataset gives, or `collate` of it, which has lists."""
    if isinstance(metadata, Mapping):
        image, masks, metadata = [image], [masks], [metadata]
    for pixels, of, columns in zip(image, masks, metadata, strict=True):
        x, y, width, height = np.asarray(columns["bbox"]).T
        box = np.stack([x, y, x + width, y + height], axis=1)
        pixels = np.asarray(pixels).transpose(1, 2, 0)
        yield _shown(pixels, np.asarray(of), box, np.asarray(columns["point_coords"]))


def _shown(image: np.ndarray, masks: np.ndarray, box: np.ndarray, point: np.ndarray) -> Seen:
    """One image of a dataset, without masks that only fill a batch up."""
    some = masks.any(axis=(1, 2)) | (box[:, 2:] > box[:, :2]).any(axis=1)
    points = point[some, None]
    return Seen(_as_bytes(image), masks[some], box[some, None], points, np.ones(points.shape[:2]))


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
