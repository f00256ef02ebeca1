"""What an example is, and the one table of what it holds of each mask.

The TFDS features, records, the JSON's parser and writer, exports and training all take the columns
from `COLUMNS`. Boxes are stored as TFDS has them, (ymin, xmin, ymax, xmax) as fractions of the
image; SA-1B's JSON has them as [x, y, width, height] in pixels. Here one is made of the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from sa1b_tfds.masks import rle

_BOX = "(ymin, xmin, ymax, xmax) as fractions of the image's height and width."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """What an example holds of each of its N masks: an array [N, *shape], row i for mask i.

    name: its key in the example's annotations and in SA-1B's JSON.
    dtype: int64 or float32.
    shape: of one mask's value.
    unit: 'pixels'; 'fractions' of the image, of a box; None of ids and scores.
    doc: what it says about the mask.
    in_list: whether SA-1B's JSON has it as the only item of a list.
    """

    name: str
    dtype: type[np.generic]
    shape: tuple[int, ...] = ()
    unit: Literal["pixels", "fractions"] | None = None
    doc: str
    in_list: bool = False

    @property
    def key(self) -> str:
        """Its name in a record."""
        return f"annotations/{self.name}"

    @property
    def json_shape(self) -> tuple[int, ...]:
        """The shape of one mask's value in SA-1B's JSON."""
        return (1, *self.shape) if self.in_list else self.shape


COLUMNS = (
    Column(name="id", dtype=np.int64, doc="Unique in the dataset."),
    Column(name="area", dtype=np.int64, unit="pixels", doc="Pixels in the mask."),
    Column(
        name="bbox",
        dtype=np.float32,
        shape=(4,),
        unit="fractions",
        doc=f"The mask's box. {_BOX}",
    ),
    Column(
        name="crop_box",
        dtype=np.float32,
        shape=(4,),
        unit="fractions",
        doc=f"The crop of the image in which the mask was found. {_BOX}",
    ),
    Column(
        name="predicted_iou",
        dtype=np.float32,
        doc="The model's own estimate of the mask's quality.",
    ),
    Column(
        name="stability_score",
        dtype=np.float32,
        doc="IoU of the mask at a stricter and a laxer threshold.",
    ),
    Column(
        name="point_coords",
        dtype=np.float32,
        shape=(2,),
        in_list=True,
        unit="pixels",
        doc="The point that prompted the mask: (x, y) in pixels of the mask.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image and its N masks, checked.

    image: JPEG bytes.
    image_id: unique in the dataset.
    file_name: the image's name, as its JSON has it.
    masks: N compressed RLEs and their size, which is the image's unless that was shrunk.
    annotations: by the names of `COLUMNS`; row i of each belongs to mask i.
    """

    image: bytes
    image_id: int
    file_name: str
    masks: rle.Checked
    annotations: dict[str, np.ndarray]

    def as_dict(self) -> dict[str, Any]:
        """Converts it to what TFDS and `write_tars` take.

        Returns:
          A dict with a key for each field.
        """
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def without_masks(self) -> Example:
        """Leaves the masks out.

        Returns:
          The image alone, with N = 0.
        """
        masks = rle.Checked([], self.masks.size)
        return dataclasses.replace(self, masks=masks, annotations=no_annotations())


def no_annotations() -> dict[str, np.ndarray]:
    """The annotations of no mask."""
    return {column.name: np.zeros((0, *column.shape), column.dtype) for column in COLUMNS}


def pixel_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The `bbox` or `crop_box` of an example as in SA-1B's JSON: float32 [N, 4], XYWH in pixels.

    They are rounded to 1/100 pixel, which takes away what float32 fractions had added.

    Args:
      boxes: float32 [N, 4], as an example has them.
      size: (height, width) of the image.
    """
    height, width = size
    y0, x0, y1, x1 = boxes.astype(np.float64).T * np.array([height, width, height, width])[:, None]
    return np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).round(2).astype(np.float32)


def fraction_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The opposite of `pixel_boxes`, not rounded: float64 [N, 4]."""
    height, width = size
    x, y, w, h = boxes.T
    return np.stack([y, x, y + h, x + w], axis=1) / np.array([height, width, height, width])


def in_pixels(columns: Mapping[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The annotations of an example with their boxes as `pixel_boxes` makes them."""
    boxes = {c.name: pixel_boxes(columns[c.name], size) for c in COLUMNS if c.unit == "fractions"}
    return {**columns, **boxes}
