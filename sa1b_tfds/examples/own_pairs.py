"""Images and masks of one's own -> pairs (jpeg, json) in SA-1B's form, for `write_tars`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import orjson
from PIL import Image
from pycocotools import mask as coco_mask

from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.annotations import to_example
from sa1b_tfds.examples.example import COLUMNS, Example, pixel_boxes
from sa1b_tfds.masks import forms, rle
from sa1b_tfds.tars.members import MAX_BYTES, suffix_of, too_large

Files = list[tuple[str, bytes]]  # a pair: (name in the tar, bytes) of each of the two

_COLUMNS = {column.name: column for column in COLUMNS}
_KEYS = {*(field.name for field in dataclasses.fields(Example)), "height", "width"}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}
_INT64 = range(-(2**63), 2**63)


def own_pairs(examples: Iterable[Mapping[str, Any] | Example]) -> Iterator[Files]:
    """Yields each image's two files, checked by reading them as any tar is read.

    Args:
      examples: as `write_tars` takes them.

    Raises:
      ValueError: if an example is bad, naming its index and the reason.
    """
    image_ids: set[int] = set()
    next_id = 1
    for index, example in enumerate(examples):
        try:
            if isinstance(example, Example):
                example = example.as_dict()
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
        where = " Columns go into 'annotations'." if _COLUMNS.keys() & set(unknown) else ""
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

    def column(name: str, default: Any) -> np.ndarray:
        values, shape = np.asarray(columns.get(name, default)), _COLUMNS[name].shape
        if values.ndim == 1 + len(_COLUMNS[name].json_shape):
            shape = _COLUMNS[name].json_shape
        if not (n or values.size):  # of no masks a list tells no more than that
            values = values.reshape(n, *shape)
        if values.shape != (n, *shape):
            raise ValueError(f"{name} must have the shape {[n, *shape]}, got {list(values.shape)}")
        return values.reshape(n, *_COLUMNS[name].shape)

    ids = column("id", np.arange(next_id, next_id + n))
    scores = {
        name: column(name, np.ones(n)).astype(np.float64)
        for name in ("predicted_iou", "stability_score")
    }
    crops = np.tile([0.0, 0.0, width, height], (n, 1))
    if "crop_box" in columns:
        crops = column("crop_box", None).astype(np.float64)
        if not in_pixels:
            crops = _crops_in_pixels(crops, (height, width))
    points = column("point_coords", np.zeros((n, 2))).astype(np.float64)
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
        _refuse_unknown(annotations, _COLUMNS.keys())
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


def _refuse_unknown(annotations: Mapping[str, Any], known: Set[str]) -> None:
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
