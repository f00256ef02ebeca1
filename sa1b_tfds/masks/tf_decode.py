"""RLE strings -> masks, in TensorFlow graph ops only: no py_function, no custom op, no Python loop.

`tf_run_ends` reads the strings. The full-size mask is never built: only the sampled rows and
columns exist, and a crop, flip or resize is just another choice of them. Each pixel is one bit of
an int64 word. The end of a run adds or subtracts that bit in its row. One cumulative sum down the
rows then draws 64 pixels at a time: each partial sum of a bit is 0 or 1, so nothing carries over
into the next bit. At the end each bit becomes a byte.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from sa1b_tfds.masks.runs import MAX_PIXELS
from sa1b_tfds.masks.tf_run_ends import ROW, RunEnds, lower_bound, run_ends, upper_bound

_MAX_SIDE = 2**24
_MAX_WORDS = 2**30
# Added to a word's index, this makes it negative, and unsorted_segment_sum skips negative indices.
_DROP = -(2**30)


class Arguments(NamedTuple):
    """Checked arguments of `decode_masks`: string [N], then int32 [2], [2] and [4]."""

    counts: tf.Tensor
    size: tf.Tensor
    output_size: tf.Tensor
    window: tf.Tensor


class GridEnds(NamedTuple):
    """The run ends of N masks on a grid of h sampled rows and g sampled columns.

    rows: int32 [h], the image row of each grid row, ascending. A row may repeat; a row below 0 or
      from H on is outside the image.
    columns: int32 [g], the image column of each grid column, ascending, without repeats.
    top: int32 [N, g], 1 where a mask is on at the top of the image in a grid column, else 0.
    mask, column, row: int32 [E], for each run end inside a grid column: its mask, its grid column,
      and the first grid row at or below it; h if there is none.
    sign: int64 [E], 1 where a run of zeros ends, -1 where a run of ones ends.
    """

    rows: tf.Tensor
    columns: tf.Tensor
    top: tf.Tensor
    mask: tf.Tensor
    column: tf.Tensor
    row: tf.Tensor
    sign: tf.Tensor


# AutoGraph would take seconds to find that this has no Python control flow on tensors.
@tf.autograph.experimental.do_not_convert
def decode_masks(
    counts: Any,
    size: Any,
    output_size: Any = None,
    window: Any = None,
    flip: Any = False,
) -> tf.Tensor:
    """Decodes the masks of one image, cropped, resized and flipped, in TensorFlow ops.

    The result equals these steps: decode in full; take the window, with zeros outside the image;
    sample it at pixel centres (rows floor((i + 0.5) * height / h), columns alike); mirror it left
    to right. Rows and columns that are not sampled cost nothing.

    Args:
      counts: string [N], compressed COCO RLE.
      size: int [2], (H, W) of every mask; at most 16384 * 16384 pixels.
      output_size: int [2], (h, w) of the result. Defaults to the window's size.
      window: int [4], the crop (y, x, height, width) in pixels of the mask. It may reach beyond the
        image. Defaults to the whole mask.
      flip: bool, whether to mirror left to right. Defaults to False.

    Returns:
      uint8 [N, h, w] of 0 and 1.

    Raises:
      tf.errors.InvalidArgumentError: if an RLE is malformed (the message names the mask's index and
        the reason), or a size or window is not positive.
    """
    counts, size, output_size, window = check_arguments(counts, size, output_size, window)
    ends = run_ends(counts, size)
    flip = tf.convert_to_tensor(flip, tf.bool)
    masks = draw(ends, tf.size(counts), size, output_size, window, flip)
    masks.set_shape([*counts.shape, *_static_values(output_size)])
    return masks


def check_arguments(counts: Any, size: Any, output_size: Any, window: Any) -> Arguments:
    """Checks arguments of `decode_masks` and fills in their defaults; raises the same errors."""
    counts = tf.ensure_shape(tf.convert_to_tensor(counts, tf.string), [None])
    size = _int_vector(size, 2, "size")
    if output_size is None:
        output_size = size if window is None else window[2:]
    output_size = _int_vector(output_size, 2, "output_size")
    window = tf.pad(size, [[2, 0]]) if window is None else window
    window = _int_vector(window, 4, "window")

    # int64 here, as the checks must see numbers that an int32 could not hold.
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
      ends: the run ends of the masks of one image.
      n: int32 [], N.
      size: int32 [2], (H, W) of every mask.
      output_size: int32 [2], (h, w) to sample.
      window: int32 [4], the crop (y, x, height, width), which may reach beyond the image.
    """
    height, width = tf.unstack(size)
    grid_width = tf.minimum(output_size[1], window[3])  # a repeated column is drawn only once
    rows = sampled(window[0], window[2], output_size[0])
    columns = sampled(window[1], window[3], grid_width)

    # For every x: the first grid column to the right of it, and whether x is a grid column itself.
    # Both are one number, 2 * column + bit, so that each run end needs a single look-up.
    x = tf.range(width)
    right_of = upper_bound(columns, x)
    code = tf.concat([2 * right_of + right_of - lower_bound(columns, x), [2 * grid_width]], axis=0)
    code = tf.gather(code, ends.position // height)

    # A mask is on at the top of a grid column if the signs of all run ends to the left sum to 1.
    # Each end is added to the first grid column to its right, and the sum goes over the columns.
    sign = tf.broadcast_to(tf.constant([1, -1] * (ROW // 2)), tf.shape(code))
    right_of = tf.bitwise.right_shift(code, 1)
    segment = tf.where(right_of < grid_width, right_of + ends.mask[:, None] * grid_width, -1)
    top = tf.math.unsorted_segment_sum(sign, segment, n * grid_width)
    top = tf.cumsum(tf.reshape(top, [n, grid_width]), axis=1)
    top = tf.where((columns >= 0) & (columns < width), top, 0)

    # Run ends inside a grid column change its pixels below them. All others count in `top` only.
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


# A tf.function of its own is traced once, not once for every dataset that uses it.
@tf.function(autograph=False, reduce_retracing=True)
def draw(
    ends: RunEnds,
    n: tf.Tensor | int,
    size: tf.Tensor,
    output_size: tf.Tensor,
    window: tf.Tensor,
    flip: tf.Tensor,
) -> tf.Tensor:
    """Run ends -> uint8 [n, h, w], as `decode_masks` returns.

    The arguments are int32 and are not checked here. If n is more than the masks of `ends`, the
    masks beyond are empty.
    """
    grid = on_grid(ends, n, size, output_size, window)
    out_height, out_width = tf.unstack(output_size)
    grid_width = tf.size(grid.columns)

    # The place of each grid column's pixel in a row of words: `_spread` takes the lowest bit of
    # every byte first, then the second, so neighbours are in neighbouring bytes.
    words = (grid_width + 63) // 64
    pixel = tf.range(grid_width)
    pixel = tf.where(flip, grid_width - 1 - pixel, pixel)
    word = pixel // 8 % words
    bit = pixel % 8 * 8 + pixel // 8 // words
    weight = tf.bitwise.left_shift(tf.ones_like(bit, tf.int64), tf.cast(bit, tf.int64))

    # Each column's state enters at the first row, and each run end at the row that it changes.
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
    # The sum carries the state at the image's edge into rows outside: all their bits are cleared.
    in_image = tf.where((grid.rows >= 0) & (grid.rows < size[0]), tf.constant(-1, tf.int64), 0)
    masks = _spread(tf.bitwise.bitwise_and(drawn, in_image[:, None]), grid_width)

    def repeat_columns() -> tf.Tensor:
        repeated = lower_bound(grid.columns, sampled(window[1], window[3], out_width))
        repeated = tf.where(flip, grid_width - 1 - repeated[::-1], repeated)
        return tf.gather(masks, repeated, axis=2)

    return tf.cond(out_width > grid_width, repeat_columns, lambda: masks)


def _spread(words: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """int64 [N, h, w] -> uint8 [N, h, width], one byte per bit: the lowest bits of all bytes first.

    Shifting a word and keeping each byte's lowest bit makes 8 pixels of it at once.
    """
    n, height, length = tf.unstack(tf.shape(words))
    side = 8 * length
    shape = tf.stack([n, height, side])
    # All at once, and slices of a size: a range of an index makes four times as many nodes to trace
    # and to optimise.
    widths = tf.unstack(tf.clip_by_value(width - side * tf.range(8), 0, side))
    lowest_bits = tf.constant(0x0101010101010101, tf.int64)
    parts = []
    for shift in range(8):
        pixels = tf.bitwise.bitwise_and(tf.bitwise.right_shift(words, shift), lowest_bits)
        pixels = tf.reshape(tf.bitcast(pixels, tf.uint8), shape)
        parts.append(tf.slice(pixels, [0, 0, 0], tf.stack([n, height, widths[shift]])))
    return tf.concat(parts, axis=2)


def sampled(start: tf.Tensor, length: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """int32 [n], the pixels at the centres of n equal parts of [start, start + length)."""
    index, length, n = (  # int64: the products exceed an int32
        tf.range(tf.cast(n, tf.int64)),
        tf.cast(length, tf.int64),
        tf.cast(n, tf.int64),
    )
    return start + tf.cast((2 * index + 1) * length // (2 * n), tf.int32)


def _int_vector(x: Any, length: int, name: str) -> tf.Tensor:
    """-> int64 [length], so that the caller can refuse numbers that do not fit an int32."""
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_integer or not x.shape.is_compatible_with([length]):
        raise ValueError(f"{name} must be integers of shape [{length}], got {x}.")
    x = tf.cast(x, tf.int64)
    return x if x.shape.is_fully_defined() else tf.ensure_shape(x, [length])


def _static_values(x: tf.Tensor) -> list[int | None]:
    values = tf.get_static_value(x)
    return [None] * 2 if values is None else values.tolist()
