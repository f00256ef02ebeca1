"""Whether the annotations of an example agree with its masks.

Building does not look, as that would take a fifth of its time: annotations are stored as they are,
and the masks tell what is right.
"""

from __future__ import annotations

import numpy as np

from sa1b_tfds.examples.annotations import read_pair
from sa1b_tfds.examples.example import Example, in_pixels
from sa1b_tfds.masks.runs import areas, bboxes, run_lengths
from sa1b_tfds.tars.pairs import Pair

# Pixels. Boxes are stored as float32 fractions of the image, of which a pixel is at least
# 1 / 2 ** 24.
BOX_TOLERANCE = 0.05


def check_pair(pair: Pair) -> None:
    """Raises a ValueError if `read_pair` does, or an 'area' or 'bbox' is not that of its mask."""
    example = read_pair(pair)
    size = example.masks.size
    runs = run_lengths(*example.masks)
    area, box = areas(runs), bboxes(runs, size)
    wrong = contradictions(example, area, box)
    said = in_pixels(example.annotations, size)
    for name, mask in (("area", area), ("bbox", box)):
        if len(places := np.flatnonzero(wrong[name])):
            first = places[0]
            raise ValueError(
                f"{len(places)} of {len(area)} annotations have another {name!r} than their mask:"
                f" annotation {first} says {said[name][first].tolist()}, its mask has"
                f" {mask[first].tolist()}"
            )


def contradictions(example: Example, area: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray]:
    """Compares the annotations of an example with its masks.

    Args:
      example: checked, as all are.
      area: int64 [N], `runs.areas` of its masks.
      box: int64 [N, 4], `runs.bboxes` of its masks.

    Returns:
      bool [N] each:
      * area: it is not the number of pixels in the mask.
      * bbox: it is the mask's box neither as SA-1B has it nor as pycocotools' `toBbox` has it.
      * bbox_one_wider: it is the latter, one more in width and height.
      The box of an empty mask is not looked at.
    """
    columns, (height, width) = example.annotations, example.masks.size
    x, y, w, h = box.T
    scale = np.array([height, width, height, width])
    off = columns["bbox"] * scale - np.stack([y, x, y + h, x + w], axis=1)

    def near(expected: list[int]) -> np.ndarray:
        return (area > 0) & (np.abs(off - expected).max(axis=1, initial=0) < BOX_TOLERANCE)

    one_wider = near([0, 0, 1, 1])
    return {
        "area": columns["area"] != area,
        "bbox": (area > 0) & ~near([0, 0, 0, 0]) & ~one_wider,
        "bbox_one_wider": one_wider,
    }
