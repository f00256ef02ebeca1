"""Relevance maps in TensorFlow graph ops: what `relevance.py` says, for a data pipeline."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sa1b_tfds.masks import tf_decode
from sa1b_tfds.masks.tf_run_ends import RunEnds, lower_bound, run_ends

_BITS = 52  # of a weight; the bits of a float64's fraction, too
_BIAS = 1023  # of its exponent


# AutoGraph would take seconds to find that there is no control flow on tensors in here.
@tf.autograph.experimental.do_not_convert
def decode_relevance(
    counts: Any,
    size: Any,
    weights: Any = None,
    output_size: Any = None,
    window: Any = None,
    flip: Any = False,
) -> tf.Tensor:
    """The sum of the weights of the masks that cover each pixel, from their RLEs.

    It equals the weighted sum of `decode_masks(counts, size, output_size, window, flip)` over N;
    no mask is drawn.

    Args:
      counts, size, output_size, window, flip: as `decode_masks` takes them.
      weights: float [N], such as predicted_iou; default: 1, which counts masks.

    Returns:
      float32 [h, w].

    Raises:
      tf.errors.InvalidArgumentError: what `decode_masks` raises, or a weight is not finite.
    """
    counts, size, output_size, window = tf_decode.check_arguments(counts, size, output_size, window)
    n = tf.size(counts)
    weights = tf.ones([n]) if weights is None else tf.convert_to_tensor(weights)
    ends = run_ends(counts, size)
    return relevance(ends, n, size, weights, output_size, window, tf.convert_to_tensor(flip))


def relevance_of_masks(masks: Any, weights: Any = None) -> tf.Tensor:
    """The same of masks that are decoded, as a batch holds them.

    Args:
      masks: numbers or bool [..., N, H, W], 0 or 1.
      weights: float [..., N]; default: 1, which counts masks.

    Returns:
      float32 [..., H, W].
    """
    masks = tf.cast(masks, tf.float32)
    if weights is None:
        return tf.reduce_sum(masks, axis=-3)
    return tf.einsum("...nhw,...n->...hw", masks, tf.cast(weights, tf.float32))


def relevance(
    ends: RunEnds,
    n: tf.Tensor | int,
    size: tf.Tensor,
    weights: tf.Tensor,
    output_size: tf.Tensor,
    window: tf.Tensor,
    flip: tf.Tensor,
) -> tf.Tensor:
    """`decode_relevance` from run ends that are there already, as `masks.draw` for `decode_masks`.

    Its arguments are int32 but the weights and flip, and are not checked here.
    """
    grid = tf_decode.on_grid(ends, n, size, output_size, window)
    height, width = tf.unstack(output_size)
    grid_width = tf.size(grid.columns)
    units, unit = _units(tf.ensure_shape(weights, [None]))

    # Along each grid column: what covers its top, and then what begins and ends.
    tops = tf.linalg.matvec(tf.cast(grid.top, tf.float64), units, transpose_a=True)
    steps = tf.gather(units, grid.mask) * tf.cast(grid.sign, tf.float64)
    places = tf.where(grid.row < height, grid.row * grid_width + grid.column, -1)
    cover = tf.math.unsorted_segment_sum(
        tf.concat([tops, steps], axis=0),
        tf.concat([tf.range(grid_width), places], axis=0),
        height * grid_width,
    )
    cover = tf.cumsum(tf.reshape(cover, [height, grid_width]))
    in_image = (grid.rows >= 0) & (grid.rows < size[0])
    cover = tf.cast(tf.where(in_image[:, None], cover, 0.0) * unit, tf.float32)

    repeated = lower_bound(grid.columns, tf_decode.sampled(window[1], window[3], width))
    cover = tf.gather(cover, tf.where(flip, repeated[::-1], repeated), axis=1)
    static = tf.get_static_value(output_size)
    return cover if static is None else tf.ensure_shape(cover, static.tolist())


def _units(weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """-> (float64 [N], whole numbers that sum to less than 2 ** 53; what 1 of them is)."""
    weights = tf.debugging.check_numerics(tf.cast(weights, tf.float64), "relevance: weights")
    total = tf.bitcast(tf.reduce_sum(tf.abs(weights)), tf.int64)
    exponent = tf.maximum(tf.bitwise.right_shift(total, _BITS) + 1, _BIAS - 900)
    unit = tf.bitcast(tf.bitwise.left_shift(exponent - _BITS, _BITS), tf.float64)
    return tf.round(weights / unit), unit
