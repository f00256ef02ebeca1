"""Masks as toggles, drawn where the model runs: the host sends a few numbers a mask, not pixels.

A mask [h, w] is a set of *toggles*: positions in the column-major order of the output grid at which
it switches between 0 and 1. A pixel is on if an odd number of toggles lie at or before it, so that
their order does not matter and two at one place cancel. `pack_runs` makes them on the host from RLE
strings, with crop, resize and flip already applied; `rasterize_runs` draws them with two ops that
XLA compiles, whatever the device. The RLE itself is read in `sa1b_tfds.masks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from sa1b_tfds import masks as masks_lib
from sa1b_tfds import rle


class PackedRuns(NamedTuple):
    """N masks [h, w] as toggles.

    toggles: int32 [N, R], column-major positions x * h + y in no order, filled up with h * w.
    needed: int32 [N], how many each mask has. One that has more than R does not fit: its row is
      empty, and `needed <= R` says which masks are whole.
    """

    toggles: tf.Tensor
    needed: tf.Tensor


def pack_runs(
    counts: Any,
    size: Any,
    output_size: Sequence[int],
    max_runs: int,
    window: Any = None,
    flip: Any = False,
) -> PackedRuns:
    """Moves the runs of one image's masks to an output grid, in TensorFlow ops.

    `rasterize_runs(toggles, output_size)` then equals `decode_masks` with the same arguments.

    Args:
      counts, size, window, flip: as `decode_masks` takes them.
      output_size: (h, w) of the masks, known when the graph is built.
      max_runs: R, the most toggles of a mask. A shape has two per column that it crosses, one
        with holes or frayed edges more.

    Raises:
      ValueError: if output_size or max_runs is not positive.
      tf.errors.InvalidArgumentError: what `decode_masks` raises.
    """
    counts, size, _, window = masks_lib.check_arguments(counts, size, output_size, window)
    flip = tf.convert_to_tensor(flip, tf.bool)
    ends = masks_lib.run_ends(counts, size)
    return pack(ends, tf.size(counts), size, output_size, window, flip, max_runs)


def pack(
    ends: masks_lib.RunEnds,
    n: tf.Tensor | int,
    size: tf.Tensor,
    output_size: Sequence[int],
    window: tf.Tensor,
    flip: tf.Tensor,
    max_runs: int,
) -> PackedRuns:
    """`pack_runs` from run ends that are there already, as `masks.draw` is for `decode_masks`."""
    height, width = rle.check_size(output_size, "output_size")
    if max_runs < 1:
        raise ValueError(f"max_runs must be positive, got {max_runs}.")
    grid = masks_lib.on_grid(ends, n, size, tf.constant([height, width]), window)
    grid_width = tf.size(grid.columns)

    # Only some of the grid's rows lie in the image; nothing is on outside of them.
    first_row = masks_lib.lower_bound(grid.rows, tf.constant([0]))[0]
    end_row = masks_lib.lower_bound(grid.rows, size[:1])[0]
    inside = tf.where(grid.row < end_row)[:, 0]
    mask, column, row, sign = (
        tf.gather(x, inside) for x in (grid.mask, grid.column, grid.row, grid.sign)
    )
    top = tf.where(first_row < end_row, grid.top, 0)
    change = tf.cast(sign, tf.int32), mask * grid_width + column, n * grid_width
    bottom = top + tf.reshape(tf.math.unsorted_segment_sum(*change), [n, grid_width])

    # The grid column that each output column shows, and the output columns that show a grid column.
    shown = masks_lib.sampled(window[1], window[3], tf.constant(width))
    shown = masks_lib.lower_bound(grid.columns, shown)
    ordered = tf.range(grid_width)
    first, last = masks_lib.lower_bound(shown, ordered), masks_lib.upper_bound(shown, ordered)
    times = last - first
    first, shown = tf.where(flip, width - last, first), tf.where(flip, shown[::-1], shown)

    # Toggles inside of columns, in each column that shows theirs.
    times = tf.gather(times, column)
    which = tf.repeat(tf.range(tf.size(times)), times)
    place = tf.range(tf.size(which)) - tf.gather(tf.cumsum(times, exclusive=True), which)
    x = tf.gather(tf.gather(first, column), which) + place
    inner = _Toggles(tf.gather(mask, which), x * height + tf.gather(row, which))

    # Toggles at the top and bottom of columns, less those that meet the next column's.
    top, bottom = tf.gather(top, shown, axis=1), tf.gather(bottom, shown, axis=1)
    meet = top[:, 1:] * bottom[:, :-1] * tf.cast((first_row == 0) & (end_row == height), tf.int32)
    top -= tf.pad(meet, [[0, 0], [1, 0]])
    bottom -= tf.pad(meet, [[0, 0], [0, 1]])
    outer = tf.cast(tf.where(tf.concat([top, bottom], axis=1) > 0), tf.int32)
    x, row = outer[:, 1] % width, tf.where(outer[:, 1] < width, first_row, end_row)
    outer = _Toggles(outer[:, 0], x * height + row)
    return _pack(inner, outer, n, max_runs, height * width)


def rasterize_runs(toggles: Any, size: Sequence[int], dtype: Any = tf.uint8) -> tf.Tensor:
    """Draws masks from toggles; made for `jit_compile=True`: static shapes, no host op.

    Args:
      toggles: int32 [..., R], as `pack_runs` makes them; every static shape is kept.
      size: (h, w), the output_size that they were made for.
      dtype: of the result.

    Returns:
      dtype [..., h, w] of 0 and 1.

    Raises:
      ValueError: if size is not two positive integers.
    """
    height, width = rle.check_size(size)
    toggles = tf.convert_to_tensor(toggles, tf.int32)
    batch, runs = tf.shape(toggles)[:-1], tf.shape(toggles)[-1]
    n = tf.reduce_prod(batch)
    # One bin more than pixels: what `pack_runs` filled up with falls into it.
    bins = height * width + 1
    position = toggles + tf.reshape(tf.range(n) * bins, tf.concat([batch, [1]], axis=0))
    count = tf.math.unsorted_segment_sum(
        tf.ones([n * runs], tf.int32), tf.reshape(position, [-1]), n * bins
    )
    count = tf.cumsum(tf.reshape(count, [n, bins])[:, :-1], axis=1)
    masks = tf.transpose(tf.reshape(count % 2, [n, width, height]), [0, 2, 1])
    masks = tf.reshape(tf.cast(masks, dtype), tf.concat([batch, [height, width]], axis=0))
    masks.set_shape([*toggles.shape[:-1], height, width])
    return masks


class _Toggles(NamedTuple):
    """int32 [E] each, ordered by mask."""

    mask: tf.Tensor
    position: tf.Tensor


def _pack(inner: _Toggles, outer: _Toggles, n: tf.Tensor, max_runs: int, fill: int) -> PackedRuns:
    """Puts the toggles of each mask into its row."""
    own, more = (
        tf.math.unsorted_segment_sum(tf.ones_like(t.mask), t.mask, n) for t in (inner, outer)
    )
    needed = own + more
    slots = [
        tf.range(tf.size(t.mask)) - tf.gather(tf.cumsum(counts, exclusive=True) - before, t.mask)
        for t, counts, before in ((inner, own, 0), (outer, more, own))
    ]
    mask = tf.concat([inner.mask, outer.mask], axis=0)
    fits = tf.where(tf.gather(needed, mask) <= max_runs)[:, 0]
    places = tf.stack([tf.gather(mask, fits), tf.gather(tf.concat(slots, axis=0), fits)], axis=1)
    positions = tf.gather(tf.concat([inner.position, outer.position], axis=0), fits)
    toggles = tf.tensor_scatter_nd_update(tf.fill([n, max_runs], fill), places, positions)
    return PackedRuns(toggles, needed)
