"""Draws synthetic images with masks and packs them as SA-1B does. Nothing of SA-1B is in them.

The first tar is compressed with gzip, as Meta serves SA-1B's, and the second one plain.

python -m dummy_data.make     # writes the two tars beside this file again
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image

from dummy_data import scene
from sa1b_tfds.masks import rle

Files = dict[str, bytes]

# (tar, whether it is compressed, first image id, [(height, width, shapes), ...])
_TARS = [
    ("sa_000000.tar", True, 101, [(400, 600, 60), (400, 533, 44), (450, 301, 9), (201, 307, 1)]),
    ("sa_000001.tar", False, 205, [(400, 600, 52), (300, 225, 12), (180, 270, 0), (226, 341, 15)]),
]


def draw(image_id: int, height: int, width: int, shapes: int) -> tuple[bytes, dict]:
    """Draws a scene with at most `shapes` masks.

    Returns:
      (JPEG bytes, the content of the image's JSON file).
    """
    image, content = _drawn(image_id, height, width, shapes)
    return image, json.loads(content)


@functools.lru_cache(maxsize=1000)  # the tests ask for the same images again and again
def _drawn(image_id: int, height: int, width: int, shapes: int) -> tuple[bytes, bytes]:
    pixels, masks = scene.draw(image_id, height, width, shapes)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue(), json.dumps(describe(image_id, height, width, masks)).encode()


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
    image, content = _drawn(image_id, height, width, shapes)
    return {f"./sa_{image_id}.jpg": image, f"./sa_{image_id}.json": content}


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
