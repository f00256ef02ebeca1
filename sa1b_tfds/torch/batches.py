"""Items of SA1BDataset -> batches: lists, or what `transformers.SamModel` takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from sa1b_tfds.examples import jpeg
from sa1b_tfds.masks import rle
from sa1b_tfds.torch.dataset import Item
from sa1b_tfds.training.config import IMAGENET_MEAN, IMAGENET_STD

_PADDING = -10  # the label of points that SamModel ignores


def collate(batch: Sequence[Item]) -> tuple[list, list, list]:
    """Collates items to lists, without padding: images may differ in size and number of masks.

    Args:
      batch: items of `SA1BDataset`.

    Returns:
      A list of images [3, H, W], a list of masks [N, H, W], and a list of metadata.
    """
    images, masks, metadata = zip(*batch, strict=True)
    return list(images), list(masks), list(metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformersCollate:
    """Collates items to a batch for `transformers.SamModel`, without SamProcessor; static shapes.

    Items may have any `mask_size`; `SA1BDataset(mask_size=256, keep_aspect=True)` decodes no more
    than is needed here. Images are scaled and padded exactly as SamImageProcessorPil does. Boxes
    and points come from the metadata, so a transform that moves pixels must move `bbox` and
    `point_coords` as well.

    Args:
      masks_per_image: N. If an item has more masks, the first N are taken (the dataset's
        `mask_choice` decides their order); if it has fewer, empty ones are added. Defaults to 8.
      points_per_mask: P, the points drawn uniformly from the pixels of each mask, by torch's
        generator. A mask without pixels at the item's size gets SA-1B's own point. 0 omits points.
        Defaults to 1.
      boxes: whether to add boxes. Defaults to True.
      image_size: S, the model's `vision_config.image_size`. Defaults to 1024.
      mask_size: M, the side of the model's masks, S / 4. Defaults to 256.

    The batch, a dict of tensors, of which SamModel takes all but the last two:
      pixel_values: float32 [B, 3, S, S], normalised, padded with zeros at bottom and right.
      input_points: float32 [B, N, P, 2], (x, y) in pixels of pixel_values.
      input_labels: int64 [B, N, P], 1 for a point, -10 for padding.
      input_boxes: float32 [B, N, 4], (x0, y0, x1, y1) in pixels of pixel_values.
      original_sizes, reshaped_input_sizes: int64 [B, 2], (H, W) before and after scaling.
      masks: bool [B, N, M, M], what SamModel should predict.
      mask_valid: bool [B, N], False for padding, and for a mask without a pixel at M x M.

    Raises:
      ValueError: if a number is not positive, or there are neither points nor boxes.
    """

    masks_per_image: int = 8
    points_per_mask: int = 1
    boxes: bool = True
    image_size: int = 1024
    mask_size: int = 256

    def __post_init__(self) -> None:
        for name in ("masks_per_image", "image_size", "mask_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.points_per_mask < 0:
            raise ValueError(f"points_per_mask must not be negative, got {self.points_per_mask}.")
        if not self.points_per_mask and not self.boxes:
            raise ValueError("points_per_mask is 0 and boxes is False: SamModel needs a prompt.")

    def __call__(self, batch: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Raises a ValueError if an image is not uint8 [3, H, W]."""
        rows = [self._row(*item) for item in batch]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _row(self, image: torch.Tensor, masks: torch.Tensor, metadata: dict) -> dict:
        if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
            raise ValueError(
                f"An image must be uint8 [3, H, W], got {image.dtype} {list(image.shape)}: leave"
                " normalisation to TransformersCollate."
            )
        original = (image.shape[1], image.shape[2])
        resized = jpeg.fit(original, (self.image_size, self.image_size))
        n = min(len(masks), self.masks_per_image)
        row = {
            "pixel_values": self._pixels(image, resized),
            "original_sizes": torch.tensor(original),
            "reshaped_input_sizes": torch.tensor(resized),
            "masks": self._masks(masks[:n], original),
        }
        row["mask_valid"] = row["masks"].any(dim=(1, 2))
        scale = torch.tensor([resized[1] / original[1], resized[0] / original[0]])  # x, y
        if self.points_per_mask:
            points = torch.zeros(self.masks_per_image, self.points_per_mask, 2)
            labels = torch.full(points.shape[:2], _PADDING)
            for i in range(n):
                points[i] = self._points(masks[i], metadata["point_coords"][i], original) * scale
                labels[i] = 1
            row |= {"input_points": points, "input_labels": labels}
        if self.boxes:
            x, y, width, height = metadata["bbox"][:n].T
            boxes = torch.stack([x, y, x + width, y + height], dim=1) * scale.repeat(2)
            row["input_boxes"] = _padded(boxes, self.masks_per_image, 4)
        return row

    def _pixels(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        resized = torch.from_numpy(np.array(jpeg.resize(picture, self.image_size)))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        result = torch.zeros(3, self.image_size, self.image_size)
        result[:, : size[0], : size[1]] = (resized.permute(2, 0, 1) / 255 - mean) / std
        return result

    def _masks(self, masks: torch.Tensor, original: tuple[int, int]) -> torch.Tensor:
        height, width = jpeg.fit(original, (self.mask_size, self.mask_size))
        rows, columns = (
            torch.from_numpy(rle.sampled(have, want))
            for have, want in zip(masks.shape[1:], (height, width), strict=True)
        )
        result = torch.zeros(self.masks_per_image, self.mask_size, self.mask_size, dtype=torch.bool)
        result[: len(masks), :height, :width] = masks[:, rows][:, :, columns]
        return result

    def _points(
        self, mask: torch.Tensor, given: torch.Tensor, original: tuple[int, int]
    ) -> torch.Tensor:
        """float32 [P, 2], (x, y) in pixels of the image; pixel centres are whole numbers."""
        inside = mask.nonzero()
        if not len(inside):
            return given.expand(self.points_per_mask, 2)
        y, x = inside[torch.randint(len(inside), (self.points_per_mask,))].T
        height, width = mask.shape
        x, y = (x + 0.5) * (original[1] / width) - 0.5, (y + 0.5) * (original[0] / height) - 0.5
        return torch.stack([x, y], dim=1)


def _padded(rows: torch.Tensor, n: int, width: int) -> torch.Tensor:
    result = torch.zeros(n, width)
    result[: len(rows)] = rows
    return result
