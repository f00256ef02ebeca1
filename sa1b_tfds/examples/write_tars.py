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

from sa1b_tfds.core import files
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.annotations import pixel_boxes, to_example
from sa1b_tfds.masks import forms, rle
from sa1b_tfds.tars.members import MAX_BYTES, suffix_of, too_large
from sa1b_tfds.tars.names import tar_name, tar_number

IMAGES_PER_TAR = 11_185  # what most of SA-1B's own have
_DRAFT = ".draft"
_KEYS = {"image", "masks", "image_id", "annotations", "file_name", "height", "width"}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}
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

    An example is a dict with `image`, `masks` and any of the other keys here. A key that is not
    here is an error.
      * image: uint8 [H, W, 3], RGB; a PIL image; or JPEG bytes, which stay as they are but for a
        tag that would have some programs turn the image: that is removed, and the pixels stay.
        Pixels are written as JPEG with quality 95.
      * masks: none empty, on the image's pixels as they are stored: a dense array [N, H, W], what
        is not zero is inside; a list whose items are masks [H, W], RLEs or lists of polygons
        (`rle.to_rle`); or columns {'size': (H, W), 'counts': N compressed RLEs}.
      * image_id: int, unique, not negative; names the files sa_<id>.jpg and .json; default: 1 for
        the first example, 2, ...
      * annotations: columns as `tfds.load` gives them, any of: id int [N] (default: 1 for the first
        mask of all, 2, ...); predicted_iou, stability_score [N] (default: 1.0); point_coords [N, 2]
        or [N, 1, 2], (x, y) in pixels (default: the centre of the largest square that fits in the
        mask); crop_box [N, 4], fractions (ymin, xmin, ymax, xmax), or, where a number is above 2,
        [x, y, width, height] in pixels (default: the image); area and bbox, which are not looked at
        as they always come from the masks. Or a list of N records, see below.
      * file_name, height, width: what the readers of this package give with an image. They must be
        sa_<id>.jpg and the image's size.

    Instead of `masks` or of `annotations` there may be a list of N records, as
    `SamAutomaticMaskGenerator.generate` returns them, `read_amg_output` reads them and SA-1B's JSON
    has them: dicts with 'segmentation' (a mask or an RLE) and any of the columns above,
    point_coords as [[x, y]] and crop_box as [x, y, width, height] in pixels. All have the same
    keys.

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
    if unknown := sorted(map(str, example.keys() - _KEYS)):
        where = " Columns go into 'annotations'." if _COLUMNS & set(unknown) else ""
        raise ValueError(f"it has the unknown key {', '.join(map(repr, unknown))}.{where}")
    missing = [] if "image" in example else ["image"]
    if "masks" not in example and isinstance(example.get("annotations", {}), Mapping):
        missing.append("masks")
    if missing:
        raise ValueError(f"it lacks {' and '.join(missing)}")
    image_id = example.get("image_id", index + 1)
    if not isinstance(image_id, int | np.integer) or not 0 <= image_id < _INT64.stop:
        raise ValueError(f"image_id must be an integer from 0 on, got {image_id!r}")
    return int(image_id)


def _pair(example: Mapping[str, Any], image_id: int, next_id: int) -> tuple[bytes, dict[str, Any]]:
    """(JPEG bytes, content of the JSON)."""
    image = _jpeg(example["image"])
    height, width = jpeg.image_size(image)
    image = jpeg.unturned(image)
    _check_said(example, {"file_name": f"sa_{image_id}.jpg", "height": height, "width": width})
    given, columns, in_pixels = _masks_and_columns(example)
    masks = forms.to_checked(given, (height, width))
    n = len(masks.counts)

    def column(name: str, default: Any, *shape: int) -> np.ndarray:
        values = np.asarray(columns.get(name, default))
        if not (n or values.size):  # of no masks a list tells no more than that
            values = values.reshape(n, *shape)
        if values.shape != (n, *shape):
            raise ValueError(f"{name} must have the shape {[n, *shape]}, got {list(values.shape)}")
        return values

    ids = column("id", np.arange(next_id, next_id + n))
    scores = {
        name: column(name, np.ones(n)).astype(np.float64)
        for name in ("predicted_iou", "stability_score")
    }
    crops = np.tile([0.0, 0.0, width, height], (n, 1))
    if "crop_box" in columns:
        crops = column("crop_box", None, 4).astype(np.float64)
        if not in_pixels:
            crops = _crops_in_pixels(crops, (height, width))
    has_axis = np.ndim(columns.get("point_coords", ())) == 3  # SA-1B's JSON has [[x, y]]
    points = column("point_coords", np.zeros((n, 2)), *([1, 2] if has_axis else [2]))
    points = points.reshape(n, 2).astype(np.float64)
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
                "crop_box": crops[i].tolist(),
            }
        )
    names = {"image_id": image_id, "file_name": f"sa_{image_id}.jpg"}
    return image, {"image": {**names, "width": width, "height": height}, "annotations": annotations}


def _masks_and_columns(example: Mapping[str, Any]) -> tuple[Any, dict[str, Any], bool]:
    """(masks, columns of annotations, whether they are of records, with crops in pixels)."""
    masks, annotations = example.get("masks"), example.get("annotations", {})
    if not (masks is None or rle.is_array(masks) or isinstance(masks, Mapping | rle.Checked)):
        masks = list(masks)
        if any(isinstance(mask, Mapping) and "segmentation" in mask for mask in masks):
            if "annotations" in example:
                raise ValueError(
                    "masks are records, with annotations of their own: leave out those"
                )
            masks, annotations = None, masks
    if isinstance(annotations, Mapping):
        _refuse_unknown(annotations, _COLUMNS)
        return masks, dict(annotations), False
    records = list(annotations)
    for i, record in enumerate(records):
        if not isinstance(record, Mapping):
            got = type(record).__name__
            raise TypeError(f"annotations must be columns or a list of dicts, {i} is {got}")
        _refuse_unknown(record, {*_COLUMNS, "segmentation"})
        if record.keys() != records[0].keys():
            raise ValueError(f"annotation {i} has other keys than annotation 0")
    columns = {name: [r[name] for r in records] for name in (records[0] if records else ())}
    own = columns.pop("segmentation", None)
    if masks is None and own is None and records:
        raise ValueError("it lacks masks, and its annotations lack 'segmentation'")
    if masks is not None and own is not None:
        raise ValueError("its masks come twice: in 'masks' and as 'segmentation' of annotations")
    return (own or []) if masks is None else masks, columns, True


def _refuse_unknown(annotations: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(map(str, annotations.keys() - known)):
        raise ValueError(f"annotations has no column {', '.join(unknown)}")


def _check_said(example: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Raises a ValueError if the example says another thing of its image than what is right."""
    for name, value in right.items():
        said = example.get(name, value)
        if (said.decode() if isinstance(said, bytes) else said) != value:
            raise ValueError(f"{name} is {said!r}, but must be {value!r} here: leave it out")


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
    if image.mode not in _MODES:
        raise ValueError(f"image must have 8 bits a channel, got a PIL image of mode {image.mode}")
    return jpeg.encode(image.convert("RGB"), jpeg.QUALITY)


def _crops_in_pixels(crops: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[x, y, width, height] in pixels, float64 [N, 4], of such or of fractions.

    A fraction is at most 1, or a little more where a crop reaches out of the image, and a crop has
    more than two pixels in a direction.
    """
    if (crops <= 2).all():
        return pixel_boxes(crops, size).astype(np.float64).round(2)
    ends = crops[:, :2] + crops[:, 2:]
    in_image = (crops >= 0).all() and (ends <= np.array(size[::-1]) + 1).all()
    if not in_image or (crops[:, 2:].max(axis=1) <= 2).any():
        raise ValueError(
            "crop_box must be fractions (ymin, xmin, ymax, xmax), or [x, y, width, height] in"
            " pixels of the image"
        )
    return crops


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
