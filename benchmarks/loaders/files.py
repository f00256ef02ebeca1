"""Extracted files and a Dataset of torch: what most scripts on SA-1B do; and erow's form of it."""

from __future__ import annotations

import pathlib
import random
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset, RandomSampler

from loaders import BATCH, IMAGE, MASK, MASKS, WORKERS, sample

_ENDLESS = 10**6  # images an epoch: its end, where the workers start anew, is not measured


def prepare(tars: pathlib.Path, folder: pathlib.Path) -> None:
    sample.of_each_tar(_extract, tars, folder)


def _extract(tar: pathlib.Path, folder: pathlib.Path) -> None:
    with tarfile.open(tar) as members:
        members.extractall(folder / tar.stem, filter="data")


def batches(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    return drawn(_Files(folder))


def erow(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    return drawn(_AllMasks(folder))


def drawn(dataset: Dataset, **options: Any) -> Iterator[Any]:
    """Batches of images that are drawn at random."""
    sampler = RandomSampler(dataset, replacement=True, num_samples=_ENDLESS)  # type: ignore[arg-type]
    return iter(DataLoader(dataset, BATCH, sampler=sampler, num_workers=WORKERS, **options))


class _Files(Dataset):
    def __init__(self, folder: pathlib.Path):
        self._paths = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        path = self._paths[i]
        return sample.make(path.read_bytes(), path.with_suffix(".json").read_bytes())


class _AllMasks(Dataset):
    """Parses all JSON files first; decodes all masks of an image to full size, as floats."""

    def __init__(self, folder: pathlib.Path):
        self._images = []
        for path in sorted(folder.glob("*/*.json")):
            content = orjson.loads(path.read_bytes())
            self._images.append((path.with_suffix(".jpg"), content["annotations"]))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        path, rows = self._images[i]
        image = np.array(Image.open(path).convert("RGB"))
        masks = np.stack([coco_mask.decode(row["segmentation"]) for row in rows])
        masks = masks.astype(np.float32)
        # From here on it is a transform of the user's.
        size = image.shape[:2]
        height, width = sample.fitted(size, IMAGE)
        resized = np.asarray(Image.fromarray(image).resize((width, height)))
        padded = np.zeros((IMAGE, IMAGE, 3), np.float32)
        padded[:height, :width] = (resized - sample.MEAN) / sample.STD
        chosen = random.sample(range(len(rows)), min(MASKS, len(rows)))
        small = torch.nn.functional.interpolate(
            torch.from_numpy(masks)[None, chosen], sample.fitted(size, MASK), mode="nearest"
        )[0]
        targets = sample.targets(
            small.byte().numpy(),  # type: ignore[arg-type]
            [rows[k]["bbox"] for k in chosen],
            [rows[k]["point_coords"][0] for k in chosen],
            size,
        )
        return {"image": padded, **targets}
