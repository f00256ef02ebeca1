"""The work on one image as scripts do it, with Pillow, pycocotools and NumPy; and reading tars.

It imports nothing of this package: the alternatives do without. It is what a careful user writes.
Only the chosen masks are decoded, each is sampled before the next one, and the JPEG decoder reduces
the image where it stays large enough.
"""

from __future__ import annotations

import io
import multiprocessing
import pathlib
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from PIL import Image
from pycocotools import mask as coco_mask

from loaders import IMAGE, MASK, MASKS, WORKERS

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def make(jpeg: bytes, annotations: bytes) -> dict[str, np.ndarray]:
    """An image of a batch, from the bytes of its two files."""
    content = orjson.loads(annotations)
    size = content["image"]["height"], content["image"]["width"]
    rows = content["annotations"]
    rows = random.sample(rows, min(MASKS, len(rows)))
    masks = [sampled(coco_mask.decode(row["segmentation"])) for row in rows]
    boxes = [row["bbox"] for row in rows]
    points = [row["point_coords"][0] for row in rows]
    return {"image": pixels(jpeg), **targets(masks, boxes, points, size)}


def pixels(jpeg: bytes) -> np.ndarray:
    """float32 [1024, 1024, 3], letterboxed and normalised."""
    with Image.open(io.BytesIO(jpeg)) as image:
        height, width = fitted((image.height, image.width), IMAGE)
        image.draft("RGB", (width, height))
        small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    result = np.zeros((IMAGE, IMAGE, 3), np.float32)
    inside = result[:height, :width]
    np.subtract(np.asarray(small), MEAN, out=inside)
    inside /= STD
    return result


def fitted(size: Sequence[int], side: int) -> tuple[int, int]:
    """(height, width) when the long side becomes `side`."""
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def sampled(mask: np.ndarray) -> np.ndarray:
    """uint8 [h, w] of at most 256: the mask at the centres of these pixels."""
    height, width = mask.shape
    h, w = fitted(mask.shape, MASK)
    y = ((np.arange(h) + 0.5) * height / h).astype(np.int64)
    x = ((np.arange(w) + 0.5) * width / w).astype(np.int64)
    return mask.T[x[:, None], y].T  # pycocotools stores a mask column by column


def targets(
    masks: Sequence[np.ndarray],
    boxes: Sequence[Sequence[float]],
    points: Sequence[Sequence[float]],
    size: Sequence[int],
) -> dict[str, np.ndarray]:
    """Padded masks, a point in each, and boxes.

    Args:
      masks: uint8 [h, w] of at most 256, as `sampled` gives them.
      boxes: (x, y, width, height) in pixels of the photograph.
      points: SA-1B's own (x, y), for a mask that is smaller than a pixel.
      size: (height, width) of the photograph.
    """
    result = {
        "masks": np.zeros((MASKS, MASK, MASK), np.uint8),
        "points": np.zeros((MASKS, 1, 2), np.float32),
        "boxes": np.zeros((MASKS, 4), np.float32),
    }
    scale = IMAGE / max(size)
    for i, mask in enumerate(masks):
        height, width = mask.shape
        result["masks"][i, :height, :width] = mask
        inside = np.flatnonzero(mask)
        if len(inside):
            row, column = divmod(int(random.choice(inside)), width)
            result["points"][i] = (np.array([column, row]) + 0.5) * IMAGE / MASK
        else:
            result["points"][i] = np.array(points[i]) * scale
        x, y, box_width, box_height = boxes[i]
        result["boxes"][i] = np.array([x, y, x + box_width, y + box_height]) * scale
    return result


def pairs(tar: pathlib.Path) -> Iterator[tuple[str, bytes, bytes]]:
    """(name, JPEG, JSON) of each image of a tar, compressed or plain, in one pass."""
    waiting: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tar, "r|*") as members:
        for member in members:
            if not member.isfile():
                continue
            path = pathlib.PurePath(member.name)
            files = waiting.setdefault(path.stem, {})
            files[path.suffix] = members.extractfile(member).read()  # type: ignore[union-attr]
            if len(files) == 2:
                del waiting[path.stem]
                yield path.stem, files[".jpg"], files[".json"]


def of_each_tar(
    convert: Callable[[pathlib.Path, pathlib.Path], Any], tars: pathlib.Path, folder: pathlib.Path
) -> list[Any]:
    """What `convert(tar, folder)` returned for each tar, in two processes."""
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        return pool.starmap(convert, [(tar, folder) for tar in sorted(tars.glob("*.tar"))])
