"""Chooses the masks of an image: filters them, and takes at most K."""

from __future__ import annotations

import tensorflow as tf

from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.record import Record
from sa1b_tfds.training.views import View


def eligible(record: Record, config: TrainingConfig) -> tf.Tensor:
    """bool [N], whether each mask passes the config's filters."""
    # float64: an image's number of pixels has more digits than a float32.
    pixels = tf.cast(tf.reduce_prod(tf.cast(record.size, tf.int64)), tf.float64)
    largest = tf.cast(config.max_area_fraction * pixels, tf.int64)
    return (
        (record.predicted_iou >= config.min_predicted_iou)
        & (record.stability_score >= config.min_stability_score)
        & (record.area >= config.min_area)
        & (record.area <= largest)
    )


def may_be_seen(record: Record, view: View) -> tf.Tensor:
    """bool [N], whether each mask's box meets the window."""
    size = tf.cast(record.size, tf.float32)
    box = record.bbox * tf.concat([size, size], axis=0)
    top_left = tf.cast(view.window[:2], tf.float32)
    bottom_right = tf.cast(view.window[:2] + view.window[2:], tf.float32)
    # The stored fractions are rounded, so a box within a pixel of the window counts as well.
    meets = (box[:, 2:] > top_left - 1) & (box[:, :2] < bottom_right + 1)
    return tf.reduce_all(meets, axis=1)


def choose(
    record: Record, candidates: tf.Tensor, config: TrainingConfig, seed: tf.Tensor
) -> tf.Tensor:
    """int32 [min(K, candidates)], the indices of the chosen masks, the best first."""
    if config.mask_choice == "largest":
        rank = tf.cast(record.area, tf.float32)
    elif config.mask_choice == "score":
        rank = record.predicted_iou
    else:
        rank = tf.random.stateless_uniform(tf.shape(candidates), seed)
    rank = tf.where(candidates, rank, float("-inf"))
    number = tf.reduce_sum(tf.cast(candidates, tf.int32))
    return tf.math.top_k(rank, tf.minimum(number, config.masks_per_image)).indices


def boxes(record: Record) -> tf.Tensor:
    """float32 [N, 4], the dataset's boxes, (x0, y0, x1, y1) in pixels of the original."""
    box = record.bbox * tf.cast(tf.tile(record.size, [2]), tf.float32)
    return tf.gather(box, [1, 0, 3, 2], axis=1)


def padded(column: tf.Tensor, chosen: tf.Tensor, number: int) -> tf.Tensor:
    """[number, C], the chosen rows of a column [N, C], and then rows of zeros."""
    rows = tf.pad(tf.gather(column, chosen), [[0, number - tf.size(chosen)], [0, 0]])
    return tf.ensure_shape(rows, [number, column.shape[1]])
