"""RLE strings -> masks, in TensorFlow graph ops only: no py_function, no custom op, no Python loop.

`tf_run_ends` reads the strings. The full-size mask is never built: only the sampled rows and
columns exist, and any crop, flip or resize is just another choice of them. A pixel is a bit of an
int64 word; a run's end adds or subtracts that bit at the row where it lies, and one cumulative sum
over the rows of words draws 64 pixels at a time (every partial sum has only bits 0 and 1, so that
nothing carries over). At the end each bit is spread to a byte.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from sa1b_tfds.masks.runs import MAX_PIXELS
from sa1b_tfds.masks.tf_run_ends import ROW, RunEnds, lower_bound, run_ends, upper_bound

_MAX_SIDE = 2**24
_MAX_WORDS = 2**30
_DROP = -(2**30)  # added to the index of a word, this makes it negative: the sum leaves it out


class Arguments(NamedTuple):
    """Checked arguments of `decode_masks`: string [N], then int32 [2], [2] and [4]."""

    counts: tf.Tensor
    size: tf.Tensor
    output_size: tf.Tensor
    window: tf.Tensor


class GridEnds(NamedTuple):
    """The run ends of N masks on a grid of h sampled rows and g sampled columns.

    rows: int32 [h], the image's row of each grid row, in order; outside of the image if it is < 0
      or >= H. A row may be repeated.
    columns: int32 [g], the image's column of each grid column, in order, none repeated.
    top: int32 [N, g], 1 where a mask is on at the top of a grid column's first row of the image.
    mask, column, row: int32 [E], the run ends that lie inside a grid column: of which mask, in
      which grid column, and the first grid row at or below it; h if there is none.
    sign: int64 [E], 1 where a run of zeros ends, -1 where a run of ones does.
    """

    rows: tf.Tensor
    columns: tf.Tensor
    top: tf.Tensor
    mask: tf.Tensor
    column: tf.Tensor
    row: tf.Tensor
    sign: tf.Tensor


# AutoGraph would take seconds to find that there is no control flow on tensors in here.
@tf.autograph.experimental.do_not_convert
def decode_masks(
    counts: Any,
    size: Any,
    output_size: Any = None,
    window: Any = None,
    flip: Any = False,
) -> tf.Tensor:
    """Decodes the masks of one image, cropped, resized and flipped, in TensorFlow ops.

    The result equals decoding in full, then taking the window (zeros outside of the image), then
    sampling it at pixel centres (rows floor((i + 0.5) * height / h), columns alike), then mirroring
    left to right. Rows and columns that are not sampled cost nothing.

    Args:
      counts: string [N], compressed COCO RLE.
      size: int [2], (H, W) of every mask; at most 16384 * 16384 pixels.
      output_size: int [2], (h, w) of the result; default: the window's size.
      window: int [4], the crop (y, x, height, width) in pixels of the mask, which may reach out of
        the image; default: all of it.
      flip: bool, mirror left to right.

    Returns:
      uint8 [N, h, w] of 0 and 1.

    Raises:
      tf.errors.InvalidArgumentError: if an RLE is malformed (it names the mask's index and the
        reason), or a size or window is not positive.
    """
    counts, size, output_size, window = check_arguments(counts, size, output_size, window)
    ends = run_ends(counts, size)
    flip = tf.convert_to_tensor(flip, tf.bool)
    masks = draw(ends, tf.size(counts), size, output_size, window, flip)
    masks.set_shape([*counts.shape, *_static_values(output_size)])
    return masks


def check_arguments(counts: Any, size: Any, output_size: Any, window: Any) -> Arguments:
    """Checks and completes those arguments of `decode_masks`; raises what it raises."""
    counts = tf.ensure_shape(tf.convert_to_tensor(counts, tf.string), [None])
    size = _int_vector(size, 2, "size")
    if output_size is None:
        output_size = size if window is None else window[2:]
    output_size = _int_vector(output_size, 2, "output_size")
    window = tf.pad(size, [[2, 0]]) if window is None else window
    window = _int_vector(window, 4, "window")

    words = tf.size(counts, tf.int64) * output_size[0] * ((output_size[1] + 63) // 64)
    sides = tf.concat([size, output_size, window[2:]], axis=0)
    sound = tf.reduce_all(sides > 0) & tf.reduce_all(sides < _MAX_SIDE)
    sound &= tf.reduce_all(tf.abs(window[:2]) < _MAX_SIDE) & (words < _MAX_WORDS)
    sound &= tf.reduce_prod(size) <= MAX_PIXELS
    message = "decode_masks: size, window or output_size is not positive, or too large:"
    assertion = tf.debugging.Assert(sound, [message, size, window, output_size])
    with tf.control_dependencies([] if assertion is None else [assertion]):
        size, window, output_size = (tf.cast(x, tf.int32) for x in (size, window, output_size))
    return Arguments(counts, size, output_size, window)


def on_grid(
    ends: RunEnds, n: tf.Tensor | int, size: tf.Tensor, output_size: tf.Tensor, window: tf.Tensor
) -> GridEnds:
    """Moves the run ends of N masks to the sampled rows and columns of a window.

    Args:
      ends: of the masks of one image.
      n: int32 [], N.
      size: int32 [2], (H, W) of every mask.
      output_size: int32 [2], (h, w) to sample.
      window: int32 [4], the crop (y, x, height, width), which may reach out of the image.
    """
    height, width = tf.unstack(size)
    grid_width = tf.minimum(output_size[1], window[3])  # a column that is repeated is drawn once
    rows = sampled(window[0], window[2], output_size[0])
    columns = sampled(window[1], window[3], grid_width)

    # For every x: the first grid column to the right of it, and whether x is a grid column itself.
    x = tf.range(width)
    right_of = upper_bound(columns, x)
    code = tf.concat([2 * right_of + right_of - lower_bound(columns, x), [2 * grid_width]], axis=0)
    code = tf.gather(code, ends.position // height)

    # The state at the top of each grid column: the run ends to the left of it, by their signs.
    sign = tf.broadcast_to(tf.constant([1, -1] * (ROW // 2)), tf.shape(code))
    right_of = tf.bitwise.right_shift(code, 1)
    segment = tf.where(right_of < grid_width, right_of + ends.mask[:, None] * grid_width, -1)
    top = tf.math.unsorted_segment_sum(sign, segment, n * grid_width)
    top = tf.cumsum(tf.reshape(top, [n, grid_width]), axis=1)
    top = tf.where((columns >= 0) & (columns < width), top, 0)

    # The run ends inside a grid column.
    inside = tf.where(tf.reshape(tf.bitwise.bitwise_and(code, 1), [-1]) > 0)[:, 0]
    column = tf.bitwise.right_shift(tf.gather(tf.reshape(code, [-1]), inside), 1) - 1
    y = tf.gather(tf.reshape(ends.position, [-1]), inside) - tf.gather(columns * height, column)
    return GridEnds(
        rows=rows,
        columns=columns,
        top=top,
        mask=tf.gather(ends.mask, inside // ROW),
        column=column,
        row=tf.gather(lower_bound(rows, tf.range(height)), y),
        sign=1 - 2 * (inside % 2),
    )


# As a function of its own it is traced once, and not for every dataset that uses it.
@tf.function(autograph=False, reduce_retracing=True)
def draw(
    ends: RunEnds,
    n: tf.Tensor | int,
    size: tf.Tensor,
    output_size: tf.Tensor,
    window: tf.Tensor,
    flip: tf.Tensor,
) -> tf.Tensor:
    """Run ends -> uint8 [n, h, w], as `decode_masks`; its arguments are int32 and not checked here.

    n may be more than there are masks: those have no runs, and are empty.
    """
    grid = on_grid(ends, n, size, output_size, window)
    out_height, out_width = tf.unstack(output_size)
    grid_width = tf.size(grid.columns)

    # Where a pixel of a grid column lies in a row of words (see `_spread`).
    words = (grid_width + 63) // 64
    pixel = tf.range(grid_width)
    pixel = tf.where(flip, grid_width - 1 - pixel, pixel)
    word = pixel // 8 % words
    bit = pixel % 8 * 8 + pixel // 8 // words
    weight = tf.bitwise.left_shift(tf.ones_like(bit, tf.int64), tf.cast(bit, tf.int64))

    top_bits = tf.cast(grid.top, tf.int64) * weight
    top_words = tf.range(n)[:, None] * (out_height * words) + word
    row_words = tf.where(grid.row < out_height, grid.row * words, _DROP)
    end_words = grid.mask * (out_height * words) + row_words + tf.gather(word, grid.column)
    end_bits = tf.gather(weight, grid.column) * grid.sign

    drawn = tf.math.unsorted_segment_sum(
        tf.concat([end_bits, tf.reshape(top_bits, [-1])], axis=0),
        tf.concat([end_words, tf.reshape(top_words, [-1])], axis=0),
        n * out_height * words,
    )
    drawn = tf.cumsum(tf.reshape(drawn, [n, out_height, words]), axis=1)
    in_image = tf.where((grid.rows >= 0) & (grid.rows < size[0]), tf.constant(-1, tf.int64), 0)
    masks = _spread(tf.bitwise.bitwise_and(drawn, in_image[:, None]), grid_width)

    def repeat_columns() -> tf.Tensor:
        repeated = lower_bound(grid.columns, sampled(window[1], window[3], out_width))
        repeated = tf.where(flip, grid_width - 1 - repeated[::-1], repeated)
        return tf.gather(masks, repeated, axis=2)

    return tf.cond(out_width > grid_width, repeat_columns, lambda: masks)


def _spread(words: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """int64 [N, h, w] -> uint8 [N, h, width]: the bits, the lowest bits of all bytes first."""
    n, height, length = tf.unstack(tf.shape(words))
    lowest_bits = tf.constant(0x0101010101010101, tf.int64)
    parts = []
    for shift in range(8):
        pixels = tf.bitwise.bitwise_and(tf.bitwise.right_shift(words, shift), lowest_bits)
        pixels = tf.reshape(tf.bitcast(pixels, tf.uint8), [n, height, 8 * length])
        parts.append(pixels[:, :, : tf.maximum(0, width - 8 * length * shift)])
    return tf.concat(parts, axis=2)


def sampled(start: tf.Tensor, length: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """The pixels at the centres of n equal parts of [start, start + length)."""
    index, length, n = (
        tf.range(tf.cast(n, tf.int64)),
        tf.cast(length, tf.int64),
        tf.cast(n, tf.int64),
    )
    return start + tf.cast((2 * index + 1) * length // (2 * n), tf.int32)


def _int_vector(x: Any, length: int, name: str) -> tf.Tensor:
    """-> int64 [length]: wide enough to see what does not fit."""
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_integer or not x.shape.is_compatible_with([length]):
        raise ValueError(f"{name} must be integers of shape [{length}], got {x}.")
    x = tf.cast(x, tf.int64)
    return x if x.shape.is_fully_defined() else tf.ensure_shape(x, [length])


def _static_values(x: tf.Tensor) -> list[int | None]:
    values = tf.get_static_value(x)
    return [None] * 2 if values is None else values.tolist()
