"""`write_tars`: images and masks of one's own -> tars in SA-1B's form.

What they hold is described in `segment_anything/README.md`. This package reads them, and so does
SAM2's trainer once they are extracted (`SA1BRawDataset` with both folders the same).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from etils import epath
from PIL import Image
from pycocotools import mask as coco_mask

from sa1b_tfds import files, jpeg, rle
from sa1b_tfds.annotations import to_example
from sa1b_tfds.tars.members import MAX_BYTES, suffix_of, too_large
from sa1b_tfds.tars.names import tar_name, tar_number

IMAGES_PER_TAR = 11_185  # what most of SA-1B's own have
_DRAFT = ".draft"
_COLUMNS = {"id", "area", "bbox", "crop_box", "predicted_iou", "stability_score", "point_coords"}
_INT64 = range(-(2**63), 2**63)


def write_tars(
    examples: Iterable[Mapping[str, Any]],
    output_dir: str | os.PathLike[str],
    *,
    images_per_tar: int = IMAGES_PER_TAR,
    max_tar_size: int | None = None,
    first_tar: int = 0,
) -> list[epath.Path]:
    """Writes images and masks as sa_000000.tar, sa_000001.tar, ...

    An example is a dict:
      * image: uint8 [H, W, 3], RGB; a PIL image; or JPEG bytes, which stay as they are. Pixels are
        written as JPEG with quality 95.
      * masks: of the image's size and none empty: a dense array [N, H, W], what is not zero is
        inside; a list of COCO segmentations (RLE, or lists of polygons); or columns
        {'size': (H, W), 'counts': N compressed RLEs}.
      * image_id (optional): int, unique, not negative; names the files sa_<id>.jpg and .json;
        default: 1 for the first example, 2, ...
      * annotations (optional): columns as `tfds.load` gives them, any of: id int [N] (default: 1
        for the first mask of all, 2, ...); predicted_iou, stability_score [N] (default: 1.0);
        point_coords [N, 2], (x, y) in pixels (default: the centre of the largest square that fits
        in the mask); crop_box [N, 4], fractions (ymin, xmin, ymax, xmax) (default: the image).
        area and bbox always come from the masks.

    A tar appears under its name when it is whole and synced. Where an example is bad, the tars
    before its own are kept.

    Args:
      examples: read once, one at a time.
      output_dir: made if it is not there.
      images_per_tar: at most so many images a tar.
      max_tar_size: bytes that no tar exceeds, unless one image does; default: no limit.
      first_tar: the first tar's number; to add to a folder, more than its last one.

    Returns:
      The tars' paths.

    Raises:
      ValueError: if an example is bad, naming its index and the reason, or there is none.
      FileExistsError: if the folder holds a tar of that number or a later one.
      FolderInUse: if another process writes into the folder.
    """
    for name, value in (("images_per_tar", images_per_tar), ("max_tar_size", max_tar_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be positive, got {value}.")
    if first_tar < 0:
        raise ValueError(f"first_tar must not be negative, got {first_tar}.")
    folder = epath.Path(output_dir)
    with _held(folder):
        _refuse_to_overwrite(folder, first_tar)
        pairs = _pairs(examples)
        written: list[epath.Path] = []
        pair = next(pairs, None)
        while pair is not None:
            path = folder / tar_name(first_tar + len(written))
            with _draft(path) as file, tarfile.open(fileobj=file, mode="w:", format=_USTAR) as tar:
                for _ in range(images_per_tar):
                    for name, data in pair:
                        add_file(tar, f"./{name}", data)
                    pair = next(pairs, None)
                    if pair is None or _is_full(tar, pair, max_tar_size):
                        break
            written.append(path)
    if not written:
        raise ValueError("There is no example to write.")
    return written


_USTAR = tarfile.USTAR_FORMAT
_Files = list[tuple[str, bytes]]


@contextmanager
def _held(folder: epath.Path) -> Iterator[None]:
    """Holds the folder, and removes what a killed process left in it."""
    try:
        with files.locked(folder):
            for path in folder.glob(f".sa_*.tar{_DRAFT}"):
                path.unlink(missing_ok=True)
            yield
    except files.FolderInUse:
        raise files.FolderInUse(
            f"Another process writes into {folder}. Wait for it, or take another folder."
        ) from None


def _refuse_to_overwrite(folder: epath.Path, first_tar: int) -> None:
    for path in folder.glob("sa_*.tar"):
        if (tar_number(path.name) or 0) >= first_tar:
            raise FileExistsError(
                f"{path} is there already, and is not overwritten. Take another folder, or add to"
                " this one with first_tar."
            )


@contextmanager
def _draft(path: epath.Path) -> Iterator[Any]:
    """A file to write that gets its name in the end, or is removed."""
    draft = path.parent / f".{path.name}{_DRAFT}"
    try:
        with draft.open("wb") as file:
            yield file
        files.sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    files.sync(path.parent)


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a file of the same header bytes every time: no date, owner or rights of this machine."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, BytesIO(data))


def _is_full(tar: tarfile.TarFile, pair: _Files, max_tar_size: int | None) -> bool:
    if max_tar_size is None:
        return False
    blocks = sum(1 + -(-len(data) // tarfile.BLOCKSIZE) for _, data in pair)
    # tarfile fills the end up to whole records.
    end = tar.offset + (blocks + 2) * tarfile.BLOCKSIZE
    return -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE > max_tar_size


def _pairs(examples: Iterable[Mapping[str, Any]]) -> Iterator[_Files]:
    """Yields an image's two files, checked by reading them as any tar is read."""
    image_ids: set[int] = set()
    next_id = 1
    for index, example in enumerate(examples):
        try:
            image_id = _image_id(example, index)
            if image_id in image_ids:
                raise ValueError(f"image_id {image_id} was there before")
            image_ids.add(image_id)
            image, content = _pair(example, image_id, next_id)
            next_id += len(content["annotations"])
            annotations = orjson.dumps(content)
            to_example(image, annotations)
            pair = [(f"sa_{image_id}.jpg", image), (f"sa_{image_id}.json", annotations)]
            for name, data in pair:
                if len(data) > (limit := MAX_BYTES[suffix_of(name)]):
                    raise ValueError(f"{name}: {too_large(len(data), limit)}")
        except (ValueError, TypeError, OverflowError) as e:
            raise ValueError(f"Example {index}: {e}") from e
        yield pair


def _image_id(example: Mapping[str, Any], index: int) -> int:
    if not isinstance(example, Mapping):
        raise TypeError(f"it must be a dict, got {type(example).__name__}")
    if missing := {"image", "masks"} - example.keys():
        raise ValueError(f"it lacks {' and '.join(sorted(missing))}")
    image_id = example.get("image_id", index + 1)
    if not isinstance(image_id, int | np.integer) or not 0 <= image_id < _INT64.stop:
        raise ValueError(f"image_id must be an integer from 0 on, got {image_id!r}")
    return int(image_id)


def _pair(example: Mapping[str, Any], image_id: int, next_id: int) -> tuple[bytes, dict[str, Any]]:
    """(JPEG bytes, content of the JSON)."""
    image = _jpeg(example["image"])
    height, width = jpeg.image_size(image)
    masks = rle.to_checked(example["masks"], (height, width))
    n = len(masks.counts)
    columns = example.get("annotations", {})
    if unknown := set(columns) - _COLUMNS:
        raise ValueError(f"annotations has no column {', '.join(sorted(unknown))}")

    def column(name: str, default: Any, *shape: int) -> np.ndarray:
        values = np.asarray(columns.get(name, default))
        if values.shape != (n, *shape):
            raise ValueError(f"{name} must have the shape {[n, *shape]}, got {list(values.shape)}")
        return values

    ids = column("id", np.arange(next_id, next_id + n))
    scores = {
        name: column(name, np.ones(n)).astype(np.float64)
        for name in ("predicted_iou", "stability_score")
    }
    crops = column("crop_box", np.tile([0.0, 0.0, 1.0, 1.0], (n, 1)), 4).astype(np.float64)
    points = column("point_coords", np.zeros((n, 2)), 2).astype(np.float64)
    annotations = []
    for i, counts in enumerate(masks.counts):
        segmentation = {"size": [height, width], "counts": counts}
        if not (area := rle.area(segmentation)):
            raise ValueError(f"mask {i} is empty: leave it out")
        box = rle.bbox(segmentation)
        point = points[i] if "point_coords" in columns else _interior_point(segmentation, box)
        annotations.append(
            {
                "id": ids[i].item(),
                "area": area,
                "bbox": box,
                "segmentation": {
                    "size": [height, width],
                    "counts": counts.decode(),
                },
                "predicted_iou": scores["predicted_iou"][i].item(),
                "stability_score": scores["stability_score"][i].item(),
                "point_coords": [[float(v) for v in point]],
                "crop_box": _crop_box(crops[i], height, width),
            }
        )
    names = {"image_id": image_id, "file_name": f"sa_{image_id}.jpg"}
    return image, {"image": {**names, "width": width, "height": height}, "annotations": annotations}


def _jpeg(image: Any) -> bytes:
    if isinstance(image, bytes):
        return image
    if not isinstance(image, Image.Image):
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                "image must be uint8 [H, W, 3], a PIL image or JPEG bytes, got"
                f" {pixels.dtype} {list(pixels.shape)}"
            )
        image = Image.fromarray(pixels)
    return jpeg.encode(image.convert("RGB"), jpeg.QUALITY)


def _crop_box(box: Sequence[float], height: int, width: int) -> list[float]:
    """Fractions -> [x, y, w, h] in pixels, without the error that float32 brought in."""
    top, left, bottom, right = (float(v) for v in box)
    pixels = (left * width, top * height, (right - left) * width, (bottom - top) * height)
    return [round(v, 2) for v in pixels]


def _interior_point(segmentation: Mapping[str, Any], box: Sequence[float]) -> tuple[float, float]:
    """(x, y), the middle of the centre pixel of the largest odd square that fits in the mask.

    By the sums over all rectangles from the corner (integral image), one look a pixel tells whether
    a square there is full; the largest side is found by bisection, as smaller ones fit as well.
    """
    x, y, width, height = (int(v) for v in box)
    mask = coco_mask.decode(segmentation)[y : y + height + 1, x : x + width + 1]
    sums = np.pad(np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))

    def full(radius: int) -> np.ndarray:
        side = 2 * radius + 1
        total = (
            sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
        )
        return total == side**2

    fits, too_large = 0, (min(mask.shape) + 1) // 2
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if full(middle).any():
            fits = middle
        else:
            too_large = middle
    rows, columns = np.nonzero(full(fits))
    middle = len(rows) // 2
    return x + columns[middle] + fits + 0.5, y + rows[middle] + fits + 0.5
