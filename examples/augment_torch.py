"""Augmentation for PyTorch with albumentations: image, masks, boxes and points move together.

    pip install 'albumentations>=2.0,<3'
    python examples/augment_torch.py          # draws augmented.png here, of the dummy data

albumentations 2.0.8 (MIT) is the last release under that name; its successor is AGPL. It is no
dependency of sa1b_tfds.
"""

from __future__ import annotations

import pathlib

import albumentations as A
import numpy as np
import torch
from PIL import Image

from sa1b_tfds.masks import overlay
from sa1b_tfds.torch import SA1BDataset

ROOT = pathlib.Path(__file__).parents[1]
PICTURE = pathlib.Path("augmented.png")


class Augment:
    """`transform` of SA1BDataset: a crop, a flip and changed colours; masks that are lost go.

    The dataset must give full-size masks (no `mask_size`), as pixels and masks share their grid.
    """

    def __init__(self, side: int, seed: int | None = None):
        self._compose = A.Compose(
            [
                A.RandomResizedCrop(size=(side, side), scale=(0.3, 1.0)),
                A.HorizontalFlip(p=0.5),
                A.ColorJitter(0.2, 0.2, 0.2, 0.0),
            ],
            keypoint_params=A.KeypointParams(format="xy", remove_invisible=False),
            seed=seed,
        )

    def __call__(
        self, image: torch.Tensor, masks: torch.Tensor, metadata: dict
    ) -> tuple[torch.Tensor, torch.Tensor, dict]:
        out = self._compose(
            image=image.permute(1, 2, 0).contiguous().numpy(),
            masks=list(masks.numpy().astype(np.uint8)),
            keypoints=metadata["point_coords"].numpy(),
        )
        side = out["image"].shape[0]
        moved = np.array(out["masks"], bool).reshape(len(masks), side, side)
        left = torch.from_numpy(moved.any(axis=(1, 2)))
        moved_masks = torch.from_numpy(moved)[left]
        columns = {
            name: value[left] if isinstance(value, torch.Tensor) else value
            for name, value in metadata.items()
        }
        points = torch.from_numpy(np.array(out["keypoints"], np.float32).reshape(-1, 2))
        columns |= {
            "height": side,
            "width": side,
            "point_coords": points[left],
            "area": moved_masks.sum(dim=(1, 2)),
            "bbox": boxes_of(moved_masks),
        }
        del columns["crop_box"]  # the crop of the original image in which the mask was found
        return torch.from_numpy(out["image"]).permute(2, 0, 1), moved_masks, columns


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    """bool [N, H, W], none of them empty -> float32 [N, 4], XYWH as SA-1B has it."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        y, x = mask.nonzero().T
        box[:] = torch.stack([x.min(), y.min(), x.max() - x.min(), y.max() - y.min()])
    return boxes


def main() -> None:
    dataset = SA1BDataset(ROOT / "dummy_data", transform=Augment(side=192, seed=0))
    pictures = []
    for i in range(4):
        image, masks, metadata = dataset[i]
        print(metadata["file_name"], tuple(image.shape), tuple(masks.shape))
        pixels = image.permute(1, 2, 0).numpy()
        pictures.append(np.vstack([pixels, overlay.paint_masks(masks.numpy(), pixels)]))
    Image.fromarray(np.hstack(pictures)).save(PICTURE)
    print(f"See {PICTURE.name}.")


if __name__ == "__main__":
    main()
