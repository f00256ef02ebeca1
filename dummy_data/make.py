"""Draws synthetic images with masks and packs them as SA-1B does. Nothing of SA-1B is in them.

The first tar is compressed with gzip, as Meta serves SA-1B's, and the second one plain.

python dummy_data/make.py     # writes the two tars beside this file again
"""

from __future__ import annotations

import gzip
import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image, ImageDraw

from sa1b_tfds.masks import rle

Files = dict[str, bytes]

# (tar, whether it is compressed, first image id, [(height, width, shapes), ...])
_TARS = [
    ("sa_000000.tar", True, 101, [(240, 360, 24), (251, 333, 17), (360, 240, 9), (201, 307, 1)]),
    ("sa_000001.tar", False, 205, [(240, 320, 30), (300, 225, 12), (180, 270, 0), (226, 341, 15)]),
]


def draw(image_id: int, height: int, width: int, shapes: int) -> tuple[bytes, dict]:
    """Draws overlapping shapes; each one's visible part is a mask.

    Returns:
      (JPEG bytes, the content of the image's JSON file).
    """
    rng = np.random.default_rng(image_id)
    top, bottom = rng.integers(60, 200, (2, 3))
    slope = np.linspace(0, 1, height)[:, None, None]
    image = Image.fromarray(np.uint8(np.ones((1, width, 1)) * ((1 - slope) * top + slope * bottom)))
    owner = np.zeros((height, width), int)
    for shape in range(1, shapes + 1):
        inside = Image.new("1", (width, height))
        pen = ImageDraw.Draw(inside)
        radius = rng.uniform(0.04, 0.22) * min(height, width)
        center = rng.uniform((0, 0), (width, height))
        if shape % 3 == 0:
            half = np.array([radius, 0.8 * radius])
            pen.ellipse([*(center - half), *(center + half)], fill=1)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 3 + shape % 4))
            corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            pen.polygon([tuple(corner) for corner in corners], fill=1)
        image.paste(tuple(int(c) for c in rng.integers(0, 256, 3)), mask=inside)
        owner[np.array(inside)] = shape
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    masks = [owner == shape for shape in range(1, shapes + 1)]
    return out.getvalue(), describe(image_id, height, width, [m for m in masks if m.any()])


def describe(image_id: int, height: int, width: int, masks: list[np.ndarray]) -> dict:
    """The content of the JSON file for an image with these masks [H, W]."""
    rng = np.random.default_rng(image_id)
    annotations = []
    for i, mask in enumerate(masks):
        encoded = rle.encode_mask(mask)
        y, x = (float(v[len(v) // 2]) for v in np.nonzero(mask))
        annotations.append(
            {
                "bbox": rle.bbox(encoded),
                "area": rle.area(encoded),
                "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
                "predicted_iou": float(rng.uniform(0.88, 1.01)),
                "point_coords": [[x + 0.25, y + 0.5]],
                "crop_box": [0.0, 0.0, float(width), float(height)],
                "id": 333_000_000 + 1000 * image_id + i,
                "stability_score": float(rng.uniform(0.92, 1.0)),
            }
        )
    file_name = f"sa_{image_id}.jpg"
    image = {"image_id": image_id, "width": width, "height": height, "file_name": file_name}
    return {"image": image, "annotations": annotations}


def files_of(image_id: int, height: int = 24, width: int = 32, shapes: int = 3) -> Files:
    """The two files of an image, by their names in a tar."""
    image, content = draw(image_id, height, width, shapes)
    return {
        f"./sa_{image_id}.jpg": image,
        f"./sa_{image_id}.json": json.dumps(content).encode(),
    }


def write_tar(path: pathlib.Path, files: Files, seed: int = 0) -> None:
    """Packs files in a random order, as SA-1B's tars have them."""
    names = list(files)
    np.random.default_rng(seed).shuffle(names)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            tar.addfile(info, io.BytesIO(files[name]))


def compress(path: pathlib.Path) -> None:
    """Compresses a tar under the name that it has; no time is in it, so the bytes stay the same."""
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def main() -> None:
    for name, is_compressed, first_id, images in _TARS:
        files: Files = {}
        for i, (height, width, shapes) in enumerate(images):
            files |= files_of(first_id + i, height, width, shapes)
        path = pathlib.Path(__file__).parent / name
        write_tar(path, files, seed=first_id)
        if is_compressed:
            compress(path)


if __name__ == "__main__":
    main()
