"""Points and boxes from run ends: exactly those of the full-size masks, which are never drawn.

`rank(p)` is the number of the window's pixels before pixel p in the RLE's order. So a run
[start, stop) has rank(stop) - rank(start) pixels in the window. The shown pixels of a mask are
numbered run by run; then a uniform point is a uniform number. Pixel number q of the window is at
(q // height, q % height).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from sa1b_tfds.masks.tf_run_ends import RunEnds, upper_bound
from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.views import View, to_model


class Shown(NamedTuple):
    """The runs of ones of K masks, as a window shows them.

    first, stop: int32 [R], the pixels of the window (column by column) at which a run begins and
      ends.
    end: int64 [R], the number of pixels shown by all runs up to this one.
    mask: int32 [R / 16], the mask of every 16 runs; -1 if they belong to no mask.
    before: int64 [K], the number of pixels shown by all masks before.
    pixels: int64 [K], the number of pixels shown by each mask.
    height: int32 [], the window's height.
    """

    first: tf.Tensor
    stop: tf.Tensor
    end: tf.Tensor
    mask: tf.Tensor
    before: tf.Tensor
    pixels: tf.Tensor
    height: tf.Tensor


def make(
    runs: Shown,
    box: tf.Tensor,
    stored: tf.Tensor,
    view: View,
    config: TrainingConfig,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Makes the prompts that a config asks for.

    Args:
      runs: the runs of K masks.
      box: [K, 4], (x0, y0, x1, y1) in pixels of the window.
      stored: float32 [K, 2], the dataset's points, (x, y) in pixels of the original.
      view: the window, and its place in the model image.
      config: its fields about prompts are used.
      seed: int64 [2].

    Returns:
      points: float32 [K, P, 2], in pixels of the model image; 0 if the config asks only for boxes.
      labels: int32 [K, P], 1; -1 if the config asks only for boxes.
      boxes: float32 [K, 4], in pixels of the model image; without noise if the config asks only for
        points.
    """
    point_seed, box_seed = tf.unstack(tf.random.split(seed, 2))
    number = config.points_per_mask
    labels = tf.ones([config.masks_per_image, number], tf.int32)
    box = to_model_boxes(box, view)
    if config.prompts != "points":
        box = noisy(box, view, config, box_seed)
    if config.prompts == "boxes":
        return tf.zeros([*labels.shape, 2]), -labels, box
    points = tf.cast(uniform_points(runs, number, point_seed), tf.float32)
    if config.point_source == "dataset":
        window = tf.cast(tf.gather(view.window, [[1, 0], [3, 2]]), tf.float32)
        inside = stored - window[0]
        seen = tf.reduce_all((inside >= 0) & (inside < window[1]), axis=1)
        points = tf.where(seen[:, None, None], inside[:, None], points)
    return to_model(points, view), labels, box


def shown(ends: RunEnds, rank: tf.Tensor, height: tf.Tensor, number: int) -> Shown:
    """Run ends of at most `number` masks -> the runs that a window of that height shows.

    rank: int32 [B, 32], the rank of each run end, from `window_rank`. If the window is the whole
      image, the run ends are their own ranks.
    """
    # One more row of empty runs, so that there is one even without masks.
    rank = tf.pad(rank, [[0, 1], [0, 0]])
    mask = tf.pad(ends.mask, [[0, 1]], constant_values=-1)
    first, stop = rank[:, 0::2], rank[:, 1::2]
    length = stop - first
    pixels = tf.math.unsorted_segment_sum(tf.reduce_sum(length, axis=1), mask, number)
    pixels = tf.cast(pixels, tf.int64)
    return Shown(
        first=tf.reshape(first, [-1]),
        stop=tf.reshape(stop, [-1]),
        end=tf.cumsum(tf.cast(tf.reshape(length, [-1]), tf.int64)),
        mask=mask,
        before=tf.cumsum(pixels, exclusive=True),
        pixels=pixels,
        height=height,
    )


def window_rank(ends: RunEnds, size: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """int32 [B, 32], how many pixels of a window in the image are before each run end."""
    y, x, height, width = tf.unstack(window)
    column = ends.position // size[0]
    row = ends.position - column * size[0]
    rank = tf.clip_by_value(row - y, 0, height)
    rank = tf.where((column >= x) & (column < x + width), rank, 0)
    return rank + tf.clip_by_value(column - x, 0, width) * height


def uniform_points(runs: Shown, number: int, seed: tf.Tensor) -> tf.Tensor:
    """int32 [K, number, 2], (x, y) in the window, uniform over the shown pixels of each mask.

    They are drawn from 63 bits, so pixels differ in probability by at most pixels / 2**63.
    """
    shape = [runs.pixels.shape[0], number]
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.int64)
    bits = tf.bitwise.bitwise_and(bits, 2**63 - 1)
    return locate(runs, bits % tf.maximum(runs.pixels, 1)[:, None])


def locate(runs: Shown, pixel: tf.Tensor) -> tf.Tensor:
    """Finds shown pixels by number: int64 [K, P] -> int32 [K, P, 2], (x, y) in the window.

    Each mask's shown pixels are numbered column by column. A mask that shows none gives (0, 0).
    """
    wanted = tf.reshape(pixel + runs.before[:, None], [-1])
    run = upper_bound(runs.end, wanted)
    run = tf.minimum(run, tf.size(runs.end) - 1)  # a mask that shows nothing has no run
    # Counted back from the run's end: that is stored, and the run's start among the shown is not.
    back = tf.cast(tf.gather(runs.end, run) - wanted, tf.int32)
    place = tf.reshape(tf.gather(runs.stop, run) - back, tf.shape(pixel))
    place = tf.where(runs.pixels[:, None] > 0, place, 0)
    return tf.stack([place // runs.height, place % runs.height], axis=-1)


def boxes(runs: Shown) -> tf.Tensor:
    """int32 [K, 4], (x0, y0, x1, y1) in the window, over inclusive pixels; 0 if none is shown."""
    number = runs.pixels.shape[0]
    some = runs.stop > runs.first
    last = runs.stop - 1
    x0, x1 = runs.first // runs.height, last // runs.height
    # A run that goes on into the next column touches the bottom of one and the top of the other.
    whole_column = x0 < x1
    y0 = tf.where(whole_column, 0, runs.first - x0 * runs.height)
    y1 = tf.where(whole_column, runs.height - 1, last - x1 * runs.height)

    def by_mask(x: tf.Tensor, absent: int, reduce: Any, segment: Any) -> tf.Tensor:
        x = tf.reshape(tf.where(some, x, absent), [tf.size(runs.mask), -1])
        return segment(reduce(x, axis=1), runs.mask, number)

    least = [
        by_mask(x, tf.int32.max, tf.reduce_min, tf.math.unsorted_segment_min) for x in (x0, y0)
    ]
    most = [by_mask(x, tf.int32.min, tf.reduce_max, tf.math.unsorted_segment_max) for x in (x1, y1)]
    return tf.where(runs.pixels[:, None] > 0, tf.stack([*least, *most], axis=1), 0)


def to_model_boxes(box: tf.Tensor, view: View) -> tf.Tensor:
    """Boxes in pixels of the window -> float32 [K, 4], in pixels of the model image."""
    corners = to_model(tf.reshape(box, [-1, 2, 2]), view)
    least, most = tf.reduce_min(corners, axis=1), tf.reduce_max(corners, axis=1)
    return tf.concat([least, most], axis=1)


def noisy(box: tf.Tensor, view: View, config: TrainingConfig, seed: tf.Tensor) -> tf.Tensor:
    """Moves each side of boxes [K, 4] by random noise as SAM's recipe does, within the image."""
    side = tf.tile(box[:, 2:] - box[:, :2], [1, 2])
    limit = tf.minimum(side * config.box_noise, config.max_box_noise)
    moved = box + limit * tf.random.stateless_uniform(tf.shape(box), seed, -1.0, 1.0)
    last = tf.cast(tf.tile(view.resized[::-1], [2]) - 1, tf.float32)
    return tf.clip_by_value(moved, 0.0, last)
