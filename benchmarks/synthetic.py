"""Tars like SA-1B's for the benchmarks: synthetic images, or those of a tar, many times."""

from __future__ import annotations

import concurrent.futures
import gzip
import io
import json
import os
import pathlib
import shutil
import tarfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.masks import rle
from sa1b_tfds.tars import archive

Template = tuple[bytes, dict[str, Any]]  # JPEG bytes, the content of the JSON
# (height, width) of SA-1B's images: the short side is 1500 as a rule, and 4:3 is common.
_SHAPES = ((1500, 2000), (1500, 2250), (2000, 1500), (1500, 1500))


def templates(like: pathlib.Path | None = None, seeds: Iterable[int] = range(4)) -> list[Template]:
    """The images of a tar, or synthetic ones in SA-1B's mix of shapes."""
    if like is None:
        return [draw(seed, *_SHAPES[seed % len(_SHAPES)]) for seed in seeds]
    pairs = archive.TarArchive(like).pairs(Problems())
    return [(pair.jpeg, json.loads(pair.json)) for pair in pairs]


def write_tars(
    folder: pathlib.Path, templates: list[Template], tars: int, images: int
) -> pathlib.Path:
    """Tars with the template images in turn, each under an id of its own."""
    folder.mkdir()
    for number in range(tars):
        with tarfile.open(folder / f"sa_{number:06d}.tar", "w") as tar:
            for image_id in range(number * images, (number + 1) * images):
                jpeg, content = templates[image_id % len(templates)]
                image = {
                    **content["image"],
                    "image_id": image_id,
                    "file_name": f"sa_{image_id}.jpg",
                }
                annotations = json.dumps({**content, "image": image}).encode()
                for name, data in (
                    (f"./sa_{image_id}.jpg", jpeg),
                    (f"./sa_{image_id}.json", annotations),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    for tar_path in folder.iterdir():
        with open(tar_path, "rb") as file:
            os.fsync(file.fileno())
    return folder


def packed(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The same tars as Meta serves them: compressed with gzip, under the same names."""
    folder.mkdir()

    def pack(tar: pathlib.Path) -> None:
        target = folder / tar.name
        with tar.open("rb") as plain, gzip.open(target, "wb", compresslevel=6) as file:
            shutil.copyfileobj(plain, file, 2**20)
        with open(target, "rb") as file:
            os.fsync(file.fileno())

    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(pack, sorted(tars.glob("*.tar"))))
    return folder


def draw(seed: int, height: int, width: int) -> Template:
    """An image and 100 masks with wavy borders, in about as many bytes as SA-1B's in the mean.

    Those are 1.01 MB of JPEG and 63 kB of JSON. As in photographs, gzip finds something to do.
    """
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128, np.float32)
    for step in (200, 50, 12, 5, 2):  # coarse things are strong and fine ones weak, as in a photo
        for channel in range(3):
            shape = (height // step, width // step)
            coarse = Image.fromarray(rng.normal(0, 5.0 * step**0.45, shape).astype(np.float32))
            pixels[..., channel] += coarse.resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=95)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    annotations = []
    for number in range(100):
        y, x, radius = rng.uniform((0, 0, 15), (height, width, 40))
        top, bottom = int(max(0, y - 2 * radius)), int(y + 2 * radius)
        left, right = int(max(0, x - 2 * radius)), int(x + 2 * radius)
        dy, dx = rows[top:bottom, left:right] - y, columns[top:bottom, left:right] - x
        border = radius * (1 + 0.3 * np.sin(np.arctan2(dy, dx) * rng.integers(3, 20)))
        mask = np.zeros((height, width), bool)
        mask[top:bottom, left:right] = dy**2 + dx**2 < border**2
        encoded = rle.encode_mask(mask)
        annotations.append(
            {
                "id": number,
                "area": int(mask.sum()),
                "bbox": rle.bbox(encoded),
                "crop_box": [0, 0, width, height],
                "segmentation": {"size": [height, width], "counts": encoded["counts"].decode()},
                "predicted_iou": float(rng.uniform(0.88, 1.01)),
                "stability_score": float(rng.uniform(0.92, 1.0)),
                "point_coords": [[float(x), float(y)]],
            }
        )
    return out.getvalue(), {
        "image": {"height": height, "width": width},
        "annotations": annotations,
    }
