"""An example -> one image as a raw batch holds it, in NumPy. Imports no TensorFlow.

`example.py` does the same in TensorFlow ops. Masks, mask_index, boxes without noise and sizes are
equal to its own. Pixels differ by what Pillow and TensorFlow make of a JPEG, and random choices are
others. There is no random crop and no change of colours here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sa1b_tfds.core import extras
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import Example
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.relevance import relevance_map
from sa1b_tfds.masks.runs import Runs, areas, run_lengths
from sa1b_tfds.training.config import IMAGENET_MEAN, IMAGENET_STD, TrainingConfig

NpExample = dict[str, Any]

_SCALE = (1 / (255 * np.array(IMAGENET_STD))).astype(np.float32)
_OFFSET = (-np.array(IMAGENET_MEAN) / np.array(IMAGENET_STD)).astype(np.float32)


class _View(NamedTuple):
    """A whole image, resized to the top left of the square model image.

    size: (H, W) of the original.
    resized: (height, width) in the model image.
    flip: whether it is mirrored left to right within `resized`.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    flip: bool

    def to_model(self, points: np.ndarray) -> np.ndarray:
        """[..., 2], (x, y) in pixels of the original -> float32 [..., 2] in the model image."""
        points = points.astype(np.float32)
        if self.flip:
            points[..., 0] = self.size[1] - 1 - points[..., 0]
        return points * np.array(
            [new / old for new, old in zip(self.resized[::-1], self.size[::-1], strict=True)],
            np.float32,
        )


def make_example(example: Example, config: TrainingConfig, rng: np.random.Generator) -> NpExample:
    """Makes what a raw batch holds of one image.

    Args:
      example: the image. Its masks are not looked at with masks_per_image=0.
      config: what is asked for.
      rng: decides all that is random.

    Returns:
      The keys of `training_dataset`'s raw batches, without the axis B. If no mask passes the
      filters, all are invalid.

    Raises:
      ValueError: if the JPEG does not decode, or a chosen mask is malformed.
    """
    size = example.masks.size
    side = (config.image_size, config.image_size)
    resized = side if config.resize == "square" else jpeg.fit(size, side)
    view = _View(size, resized, config.flip > 0 and rng.random() < config.flip)
    made = {
        "image": _pixels(example.image, view, config),
        "image_id": np.int64(example.image_id),
        "original_size": np.array(size, np.int32),
        "resized_size": np.array(resized, np.int32),
    }
    if not config.masks_per_image:
        return made
    eligible = _eligible(example, config)
    chosen = _choose(example, eligible, config, rng)
    runs = run_lengths([example.masks.counts[i] for i in chosen], size)
    valid = areas(runs) > 0
    columns = {
        "masks": _masks(runs, view, config),
        "mask_valid": valid,
        "mask_index": np.where(valid, chosen, -1).astype(np.int32),
        **_prompts(example, chosen, runs, view, config, rng),
    }
    for name, column in columns.items():
        padding = -1 if name in ("mask_index", "labels") else 0
        column[~valid] = padding
        rows = [(0, config.masks_per_image - len(chosen))] + [(0, 0)] * (column.ndim - 1)
        made[name] = np.pad(column, rows, constant_values=padding)
    if config.relevance:
        made["relevance"] = _relevance(example, eligible, view, config)
    return made


def _pixels(data: bytes, view: _View, config: TrainingConfig) -> np.ndarray:
    """[S, S, 3], 0 outside the image."""
    pixels = jpeg.decode_to(data, view.resized, config.exact)
    if view.flip:
        pixels = pixels[:, ::-1]
    side, (height, width) = config.image_size, view.resized
    result = np.zeros((side, 3 * side), _dtype(config.image_dtype))
    # Rows of all channels: NumPy takes six times as long over a last axis of three.
    rows, inside = pixels.reshape(height, 3 * width), result[:height, : 3 * width]
    if config.normalise is None:
        inside[:] = rows
    else:
        scaled = rows * np.tile(_SCALE, width)
        np.add(scaled, np.tile(_OFFSET, width), out=inside, casting="same_kind")
    return result.reshape(side, side, 3)


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        return np.dtype(extras.load("ml_dtypes", "grain").bfloat16)
    return np.dtype(name)


def _eligible(example: Example, config: TrainingConfig) -> np.ndarray:
    """bool [N], whether each mask passes the config's filters."""
    columns = example.annotations
    largest = int(config.max_area_fraction * float(np.prod(example.masks.size)))
    return (
        (columns["predicted_iou"] >= np.float32(config.min_predicted_iou))
        & (columns["stability_score"] >= np.float32(config.min_stability_score))
        & (columns["area"] >= config.min_area)
        & (columns["area"] <= largest)
    )


def _choose(
    example: Example, eligible: np.ndarray, config: TrainingConfig, rng: np.random.Generator
) -> np.ndarray:
    """int64 [min(K, eligible)], the indices of the chosen masks, the best first."""
    if config.mask_choice == "largest":
        rank = example.annotations["area"]
    elif config.mask_choice == "score":
        rank = example.annotations["predicted_iou"]
    else:
        rank = rng.random(len(eligible))
    order = np.argsort(-rank, kind="stable")
    return order[eligible[order]][: config.masks_per_image]


def _grid(view: _View, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the original at the centres of the M x M pixels of the square.

    Those outside the image are left out, which are the last of both: it is in the top left.
    """
    rows, columns = (
        rle.sampled(int(config.image_size * old / new + 0.5), config.mask_size)
        for old, new in zip(view.size, view.resized, strict=True)
    )
    rows, columns = rows[rows < view.size[0]], columns[columns < view.size[1]]
    return rows, view.size[1] - 1 - columns[::-1] if view.flip else columns


def _masks(runs: Runs, view: _View, config: TrainingConfig) -> np.ndarray:
    """uint8 [n, M, M]."""
    rows, columns = _grid(view, config)
    drawn = rle.draw(runs, view.size, rows, columns)
    masks = np.zeros((len(drawn), config.mask_size, config.mask_size), np.uint8)
    masks[:, : len(rows), : len(columns)] = drawn[:, :, ::-1] if view.flip else drawn
    return masks


def _relevance(
    example: Example, eligible: np.ndarray, view: _View, config: TrainingConfig
) -> np.ndarray:
    """float32 [M, M]: the sum of the predicted IoUs of the masks that cover each pixel."""
    rows, columns = _grid(view, config)
    weights = np.where(eligible, example.annotations["predicted_iou"], 0)
    seen = relevance_map(example.masks, weights)[rows[:, None], columns]
    result = np.zeros((config.mask_size, config.mask_size), np.float32)
    result[: len(rows), : len(columns)] = seen[:, ::-1] if view.flip else seen
    return result


def _prompts(
    example: Example,
    chosen: np.ndarray,
    runs: Runs,
    view: _View,
    config: TrainingConfig,
    rng: np.random.Generator,
) -> NpExample:
    """boxes [n, 4], points [n, P, 2] and labels [n, P], as the config asks for."""
    height, width = view.size
    corners = example.annotations["bbox"][chosen][:, [1, 0, 3, 2]]
    corners = corners * np.array([width, height] * 2, np.float32)
    corners = view.to_model(corners.reshape(-1, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    if config.prompts != "points":
        boxes = _noisy(boxes, view, config, rng)
    shape = (len(chosen), config.points_per_mask)
    if config.prompts == "boxes":
        points = np.zeros((*shape, 2), np.float32)
    elif config.point_source == "dataset":
        points = view.to_model(example.annotations["point_coords"][chosen][:, None])
    else:
        points = view.to_model(_uniform_points(runs, view.size, config.points_per_mask, rng))
    labels = np.full(shape, -1 if config.prompts == "boxes" else 1, np.int32)
    return {"boxes": boxes, "points": points, "labels": labels}


def _noisy(
    boxes: np.ndarray, view: _View, config: TrainingConfig, rng: np.random.Generator
) -> np.ndarray:
    """Moves each side of boxes [n, 4] by random noise as SAM's recipe does, within the image."""
    side = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    limit = np.minimum(side * config.box_noise, config.max_box_noise)
    moved = boxes + limit * rng.uniform(-1, 1, boxes.shape)
    last = np.tile(view.resized[::-1], 2) - 1
    return np.clip(moved, 0, last).astype(np.float32)


def _uniform_points(
    runs: Runs, size: tuple[int, int], number: int, rng: np.random.Generator
) -> np.ndarray:
    """int64 [n, number, 2], (x, y), uniform over the pixels of each mask; (0, 0) if it has none.

    The pixels in masks are numbered run by run, through all masks; a point is a number.
    """
    pixels = areas(runs)
    before = np.cumsum(pixels) - pixels
    wanted = before[:, None] + rng.integers(
        np.maximum(pixels, 1)[:, None], size=(len(pixels), number)
    )
    inside = np.cumsum(runs.lengths * runs.is_one())
    run = np.minimum(np.searchsorted(inside, wanted, "right"), len(inside) - 1)
    # Counted back from the run's end, which is in pixels of all masks.
    place = np.cumsum(runs.lengths)[run] - (inside[run] - wanted)
    place -= np.arange(len(pixels))[:, None] * (size[0] * size[1])
    place = np.where(pixels[:, None] > 0, place, 0)
    x, y = np.divmod(place, size[0])
    return np.stack([x, y], axis=-1)
