"""Masks as toggles, drawn where the model runs: the host sends a few numbers a mask, not pixels.

The masks of an image, [N, h, w], are laid out one after the other, each in column-major order, and
stored as the *toggles* at which they switch between 0 and 1. A pixel is on if an odd number of its
mask's toggles lie at or before it; so their order does not matter, and two at one place cancel.
`pack_runs` makes them on the host from RLE strings, with crop, resize and flip already applied;
`rasterize_runs` draws them in ops that XLA compiles. `tf_run_ends.py` reads the RLE itself.

All masks of an image share one room for toggles: half of SA-1B's masks need 34 of them at 256x256,
one in a hundred needs 900. A room for each would be empty or too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from sa1b_tfds.masks import tf_decode
from sa1b_tfds.masks.runs import check_size
from sa1b_tfds.masks.tf_run_ends import RunEnds, lower_bound, run_ends, upper_bound


class PackedRuns(NamedTuple):
    """The masks of one image as toggles.

    toggles: int32 [R], positions (mask * w + x) * h + y in no order, filled up with N * h * w.
    whole: bool [N], False for a mask that did not fit any more, and is empty.
    """

    toggles: tf.Tensor
    whole: tf.Tensor


# AutoGraph would take seconds to find that there is no control flow on tensors in here.
@tf.autograph.experimental.do_not_convert
def pack_runs(
    counts: Any,
    size: Any,
    output_size: Sequence[int],
    max_runs: int,
    window: Any = None,
    flip: Any = False,
) -> PackedRuns:
    """Moves the runs of one image's masks to an output grid, in TensorFlow ops.

    Where `whole`, `rasterize_runs(toggles, N, output_size)` equals `decode_masks` with the same
    arguments. Masks find room in their order.

    Args:
      counts, size, window, flip: as `decode_masks` takes them.
      output_size: (h, w) of the masks, known when the graph is built.
      max_runs: R. A mask needs two toggles a column that it crosses, with holes and frayed edges
        more.

    Raises:
      ValueError: if output_size or max_runs is not positive.
      tf.errors.InvalidArgumentError: what `decode_masks` raises.
    """
    output_size = check_size(output_size, "output_size")
    if max_runs < 1:
        raise ValueError(f"max_runs must be positive, got {max_runs}.")
    counts, size, _, window = tf_decode.check_arguments(counts, size, output_size, window)
    ends = run_ends(counts, size)
    flip = tf.convert_to_tensor(flip, tf.bool)
    return pack(ends, tf.size(counts), size, output_size, window, flip, max_runs)


def pack(
    ends: RunEnds,
    n: tf.Tensor | int,
    size: tf.Tensor,
    output_size: Sequence[int],
    window: tf.Tensor,
    flip: tf.Tensor,
    max_runs: int,
) -> PackedRuns:
    """`pack_runs` for run ends that are there already, as `masks.draw` is to `decode_masks`."""
    height, width = output_size
    grid = tf_decode.on_grid(ends, n, size, tf.constant([height, width]), window)
    grid_width = tf.size(grid.columns)

    # Only some of the grid's rows lie in the image; nothing is on outside of them.
    first_row = lower_bound(grid.rows, tf.constant([0]))[0]
    end_row = lower_bound(grid.rows, size[:1])[0]
    inside = tf.where(grid.row < end_row)[:, 0]
    mask, column, row = (tf.gather(x, inside) for x in (grid.mask, grid.column, grid.row))
    sign = tf.cast(tf.gather(grid.sign, inside), tf.int32)
    top = tf.where(first_row < end_row, grid.top, 0)
    change = tf.math.unsorted_segment_sum(sign, mask * grid_width + column, n * grid_width)
    bottom = top + tf.reshape(change, [n, grid_width])

    # The grid column that each output column shows, and the output columns that show a grid column.
    shown = tf_decode.sampled(window[1], window[3], tf.constant(width))
    shown = lower_bound(grid.columns, shown)
    ordered = tf.range(grid_width)
    first, last = lower_bound(shown, ordered), upper_bound(shown, ordered)
    times = last - first
    first, shown = tf.where(flip, width - last, first), tf.where(flip, shown[::-1], shown)

    # Toggles inside of columns, in each output column that shows theirs.
    times = tf.gather(times, column)
    which = tf.repeat(tf.range(tf.size(times)), times)
    x = tf.range(tf.size(which)) - tf.gather(tf.cumsum(times, exclusive=True), which)
    x += tf.gather(tf.gather(first, column), which)
    inner_mask = tf.gather(mask, which)
    inner = (inner_mask * width + x) * height + tf.gather(row, which)

    # Toggles at the top and bottom of columns, less those that meet: bottom, next column's top.
    top, bottom = tf.gather(top, shown, axis=1), tf.gather(bottom, shown, axis=1)
    meet = top[:, 1:] * bottom[:, :-1] * tf.cast((first_row == 0) & (end_row == height), tf.int32)
    edges = tf.concat(
        [top - tf.pad(meet, [[0, 0], [1, 0]]), bottom - tf.pad(meet, [[0, 0], [0, 1]])], axis=1
    )
    x = tf.range(width)
    place = tf.concat([x * height + first_row, x * height + end_row], axis=0)
    outer = tf.cast(tf.where((edges > 0) & (place < width * height)), tf.int32)
    outer_mask = outer[:, 0]
    outer = outer_mask * width * height + tf.gather(place, outer[:, 1])

    mask = tf.concat([inner_mask, outer_mask], axis=0)
    needed = tf.math.unsorted_segment_sum(tf.ones_like(mask), mask, n)
    whole = tf.cumsum(needed) <= max_runs
    toggles = tf.boolean_mask(tf.concat([inner, outer], axis=0), tf.gather(whole, mask))
    room = max_runs - tf.size(toggles)
    toggles = tf.pad(toggles, [[0, room]], constant_values=n * width * height)
    return PackedRuns(tf.ensure_shape(toggles, [max_runs]), whole)


@tf.autograph.experimental.do_not_convert
def rasterize_runs(
    toggles: Any, num_masks: int, size: Sequence[int], dtype: Any = tf.uint8
) -> tf.Tensor:
    """Draws masks from toggles; made for `jit_compile=True`: static shapes, no op of the host.

    Args:
      toggles: int32 [..., R], as `pack_runs` makes them.
      num_masks: N, the masks of each image.
      size: (h, w), the output_size that they were made for.
      dtype: of the result.

    Returns:
      dtype [..., N, h, w] of 0 and 1.

    Raises:
      ValueError: if num_masks or size is not positive, or N * h * w does not fit an int32.
    """
    height, width = check_size(size)
    bins = num_masks * height * width + 1  # the last one takes what `pack_runs` filled up with
    if not 1 < bins < 2**31:
        raise ValueError(f"num_masks must be from 1 to {2**31 // (height * width)}: {num_masks}.")
    toggles = tf.convert_to_tensor(toggles, tf.int32)
    batch = tf.shape(toggles)[:-1]
    toggles = tf.reshape(toggles, [-1, toggles.shape[-1]])
    images = tf.shape(toggles)[0]
    position = tf.reshape(toggles + tf.range(images)[:, None] * bins, [-1])
    count = tf.math.unsorted_segment_sum(tf.ones_like(position), position, images * bins)
    count = tf.reshape(count, [images, bins])[:, :-1]
    parity = tf.cumsum(tf.reshape(count, [-1, width * height]), axis=1) % 2
    masks = tf.transpose(tf.reshape(parity, [-1, width, height]), [0, 2, 1])
    shape = tf.concat([batch, [num_masks, height, width]], axis=0)
    return tf.reshape(tf.cast(masks, dtype), shape)
