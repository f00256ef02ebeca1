"""What is wrong with an example that could be read: annotations that contradict their masks.

What cannot be read at all `annotations.parse` refuses before.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import numpy as np

from sa1b_tfds.examples.consistency import BOX_TOLERANCE, contradictions
from sa1b_tfds.examples.example import Example
from sa1b_tfds.masks.runs import Runs, areas, bboxes
from sa1b_tfds.stats.findings import LIMIT, Anomaly, Findings

# SAM's head that predicts the IoU is a regression: its 1.0 may come out a little larger.
MAX_PREDICTED_IOU = 1.1

KINDS = {
    "area": "'area' is not the number of pixels in the mask",
    "bbox": "'bbox' is not the box of the mask",
    "bbox_one_wider": "'bbox' is one pixel wider and higher than SA-1B's, as pycocotools' toBbox",
    "bbox_outside": "'bbox' reaches out of the image",
    "crop_box_outside": "'crop_box' reaches out of the image by a pixel or more",
    "predicted_iou": f"'predicted_iou' is not between 0 and {MAX_PREDICTED_IOU}",
    "stability_score": "'stability_score' is not between 0 and 1",
    "point_outside": "'point_coords' lies outside of the image",
    "point_off_mask": "'point_coords' lies in the image but not in the mask",
    "empty_mask": "the mask has no pixel",
    "same_mask": "the mask is the same as one before in the image",
    "same_id": "the annotation's id was there before in the image",
}


def anomalies(part: str, example: Example, runs: Runs) -> dict[str, Findings[Anomaly]]:
    """Finds what is wrong, by the `KINDS` of which there is something.

    Args:
      part: the name of what the example lies in.
      example: to look at.
      runs: of its masks.
    """
    columns = example.annotations
    counts, size = example.masks
    height, width = size
    scale = np.array([height, width, height, width])
    area = areas(runs)
    xywh = bboxes(runs, size)
    x, y, w, h = xywh.T
    mask_box = np.stack([y, x, y + h, x + w], axis=1)
    box, crop_box = (columns[name] * scale for name in ("bbox", "crop_box"))
    in_image, on_mask = _pointed_at(runs, size, columns["point_coords"].astype(np.float64))
    iou, stability = columns["predicted_iou"], columns["stability_score"]

    wrong = {
        **contradictions(example, area, xywh),
        "bbox_outside": _outside(box, scale, BOX_TOLERANCE),
        "crop_box_outside": _outside(crop_box, scale, 1 - BOX_TOLERANCE),
        "predicted_iou": ~((iou >= 0) & (iou <= MAX_PREDICTED_IOU)),
        "stability_score": ~((stability >= 0) & (stability <= 1)),
        "point_outside": ~in_image,
        "point_off_mask": in_image & ~on_mask & (area > 0),
        "empty_mask": area == 0,
        "same_mask": _repeated(counts),
        "same_id": _repeated(columns["id"].tolist()),
    }
    details = {
        "area": lambda i: f"area {columns['area'][i]}, mask {area[i]}",
        "bbox": lambda i: f"bbox {_xywh(box[i])}, mask {_xywh(mask_box[i])}",
        "bbox_one_wider": lambda i: f"bbox {_xywh(box[i])}, mask {_xywh(mask_box[i])}",
        "bbox_outside": lambda i: f"bbox {_xywh(box[i])}, image {width}x{height}",
        "crop_box_outside": lambda i: f"crop_box {_xywh(crop_box[i])}, image {width}x{height}",
        "predicted_iou": lambda i: f"predicted_iou {iou[i]:.6g}",
        "stability_score": lambda i: f"stability_score {stability[i]:.6g}",
        "point_outside": lambda i: f"{_point(columns, i)}, image {width}x{height}",
        "point_off_mask": lambda i: f"{_point(columns, i)}, mask {_xywh(mask_box[i])}",
    }
    found = {}
    for kind, flags in wrong.items():
        if not (places := np.flatnonzero(flags)).size:
            continue
        ids = columns["id"][places]
        some = places[np.argsort(ids, kind="stable")[:LIMIT]]
        say = details.get(kind, lambda i: "")
        found[kind] = Findings.of(
            (Anomaly(part, example.image_id, int(columns["id"][i]), say(i)) for i in some),
            len(places),
        )
    return found


def _outside(box: np.ndarray, scale: np.ndarray, room: float) -> np.ndarray:
    """Whether a box [N, 4] in pixels reaches out of the image, or is turned inside out.

    SA-1B's crops have room, because some of them are rounded to whole pixels.
    """
    inside = (box >= -room) & (box <= scale + room)
    upright = box[:, 2:] >= box[:, :2] - BOX_TOLERANCE
    return np.concatenate([~inside, ~upright], axis=1).max(axis=1)


def _pointed_at(
    runs: Runs, size: tuple[int, int], points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether point i, (x, y) in `points` [N, 2], is in the image, and in mask i: bool [N] each.

    Nothing says whether pixel k reaches from k to k + 1, or from k - 1/2 to k + 1/2, and SA-1B has
    points for which only the latter is right. So a point is in what either of them has it in.
    """
    height, width = size
    in_image = on_mask = np.zeros(len(points), bool)
    for x, y in itertools.product(*((np.floor(v), np.floor(v + 0.5)) for v in points.T)):
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        x, y = np.where(inside, x, 0), np.where(inside, y, 0)
        in_image = in_image | inside
        on_mask = on_mask | (inside & _on_mask(runs, size, x, y))
    return in_image, on_mask


def _on_mask(runs: Runs, size: tuple[int, int], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether pixel (x[i], y[i]), which is in the image, is in mask i: bool [N]."""
    height, width = size
    pixel = np.arange(len(x)) * (height * width) + (x * height + y).astype(np.int64)
    run = np.searchsorted(np.cumsum(runs.lengths), pixel, "right")
    return (run - runs.splits[:-1]) % 2 == 1


def _repeated(values: Sequence[Hashable]) -> np.ndarray:
    """Whether each value was there before: bool [N]."""
    first = {value: i for i, value in reversed(list(enumerate(values)))}
    return np.array([first[value] != i for i, value in enumerate(values)], bool)


def _xywh(box: np.ndarray) -> str:
    y_min, x_min, y_max, x_max = box
    return "[{:.6g}, {:.6g}, {:.6g}, {:.6g}]".format(
        *np.round([x_min, y_min, x_max - x_min, y_max - y_min], 2) + 0.0
    )


def _point(columns: dict[str, np.ndarray], i: int) -> str:
    return "point ({:.6g}, {:.6g})".format(*columns["point_coords"][i])
