"""RLE strings -> the ends of their runs, checked, in TensorFlow graph ops only.

`sa1b_tfds.masks.rle` describes the format. This module reads it in two steps:

1. *Characters -> values.* All strings of an image are joined into one byte vector. The 5-bit groups
   of every value are shifted together by doubling (1, 2, 4 characters), for all values at once.
2. *Values -> run ends.* The values of each mask are laid out in rows of 32, the masks one below the
   other. Undoing the differences and summing the runs are linear, so both are one small matrix
   product per row, plus three numbers that are carried from row to row. The result is exact: a
   float64 holds every integer of a well-formed RLE, and the first number out of range is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sa1b_tfds.masks.runs import NEGATIVE_RUN, OUTSIDE_ALPHABET, TOO_LONG, TRUNCATED, WRONG_SUM

ROW = 32  # runs in a row


def _scan_matrices() -> tuple[np.ndarray, np.ndarray]:
    """Returns (row -> numbers to carry on, row and numbers carried in -> run ends).

    With d for the stored differences, run t is d[t] + d[t - 2] + ..., and it ends at the sum of all
    runs up to t. So d[s] counts (t - s) // 2 + 1 times in the end of run t. A row carries on the
    sums of its even and of its odd differences, and its last run end.
    """
    source, target = np.arange(ROW)[:, None], np.arange(ROW)[None, :]
    step_to_end = np.where(source <= target, (target - source) // 2 + 1, 0)
    passed_on = np.concatenate([source % 2 == 0, source % 2 == 1, step_to_end[:, -1:]], axis=1)
    passed_in = [(target + 2) // 2, (target + 1) // 2, np.ones_like(target)]
    run_ends = np.concatenate([step_to_end, *passed_in])
    return passed_on.astype(np.float64), run_ends.astype(np.float64)


_PASSED_ON, _TO_RUN_ENDS = _scan_matrices()


class RunEnds(NamedTuple):
    """The ends of the runs of N masks, in rows of 32 runs. Each mask starts a new row.

    position: int32 [B, 32], the column-major pixel at which the run ends; H * W after the last run.
      Even columns end a run of zeros, odd columns a run of ones.
    mask: int32 [B], the index of the row's mask.
    """

    position: tf.Tensor
    mask: tf.Tensor


# A tf.function of its own is traced once, not once for every dataset that uses it.
@tf.function(autograph=False, reduce_retracing=True)
def run_ends(counts: tf.Tensor, size: tf.Tensor) -> RunEnds:
    """Parses and checks RLE strings.

    Args:
      counts: string [N], compressed COCO RLE.
      size: int32 [2], (H, W) of every mask.

    Raises:
      tf.errors.InvalidArgumentError: if an RLE is malformed.
    """
    values, end_of_mask = _values(counts)
    first = tf.pad(end_of_mask, [[1, 0]])[:-1]

    # Lay the values out in rows; the places after a mask's last value hold 0.
    blocks = (end_of_mask - first + ROW - 1) // ROW
    end_block = tf.cumsum(blocks)
    first_block = end_block - blocks
    block = tf.range(tf.reduce_sum(blocks))
    mask = upper_bound(end_block, block)
    first_block_of_own = tf.gather(first_block, mask)
    starts_mask = block == first_block_of_own
    start = tf.gather(first, mask) + (block - first_block_of_own) * ROW
    index = start[:, None] + tf.range(ROW)
    present = index < tf.gather(end_of_mask, mask)[:, None]
    steps = tf.gather(values, tf.minimum(index, tf.size(values) - 1))
    steps = tf.where(present, tf.cast(steps, tf.float64), 0.0)

    # The first run is stored as it is; runs 1, 3, 5, ... and 2, 4, 6, ... are chains of
    # differences. So the first run is taken out of the chains, and added to every run end as an
    # offset.
    first_run = tf.where(starts_mask, steps[:, 0], 0.0)
    steps = tf.concat([steps[:, :1] - first_run[:, None], steps[:, 1:]], axis=1)
    passed_on = tf.matmul(steps, _PASSED_ON)
    chains = _sum_before(passed_on[:, :2], first_block_of_own)
    growth = first_run + passed_on[:, 2] + ROW // 2 * tf.reduce_sum(chains, axis=1)
    offset = _sum_before(growth, first_block_of_own) + first_run
    passed_in = tf.concat([steps, chains, offset[:, None]], axis=1)
    position = tf.matmul(passed_in, _TO_RUN_ENDS)

    # Checked before the cast to int32: positions of a malformed RLE may not fit one.
    pixels = tf.cast(tf.reduce_prod(size), tf.float64)
    runs = position - tf.concat([offset[:, None] - first_run[:, None], position[:, :-1]], axis=1)
    negative = present & (runs < 0)
    last_run = tf.stack([end_block - 1, (end_of_mask - first - 1) % ROW], axis=1)
    wrong_sum = tf.gather_nd(position, last_run) != pixels

    def reasons() -> dict[str, tf.Tensor]:
        negative_row = tf.reduce_any(negative, axis=1)
        return {
            NEGATIVE_RUN: _any_per_mask(negative_row, mask, tf.size(counts)),
            WRONG_SUM: wrong_sum,
        }

    sound = ~(tf.reduce_any(negative) | tf.reduce_any(wrong_sum))
    with tf.control_dependencies([_require(sound, reasons)]):
        position = tf.where(present, position, pixels)
    return RunEnds(tf.cast(position, tf.int32), mask)


def _values(counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Characters -> (int32 [V] values of all masks, int32 [N] where each mask's values end)."""
    chars = tf.strings.length(counts)
    end_of_mask = tf.cumsum(chars)
    joined = tf.strings.reduce_join(counts) + "0" * 7  # the code below looks 7 characters ahead
    group = tf.cast(tf.io.decode_raw(joined, tf.uint8), tf.int32) - 48
    last = group < 32

    # At every character: the value that would begin there. `one`, `two` and `four` are 1 where that
    # many characters in a row go on. A group's own value has bit 4 as its sign if it is the last.
    one = tf.bitwise.right_shift(group, 5)
    two = one[:-1] * one[1:]
    four = two[:-2] * two[2:]
    value = tf.where(last, tf.bitwise.bitwise_xor(group, 16) - 16, group - 32)
    value = value[:-1] + one[:-1] * value[1:] * 2**5
    value = value[:-2] + two[:-2] * value[2:] * 2**10
    value = value[:-4] + four[:-4] * value[4:] * 2**20

    truncated = (chars == 0) | ~tf.gather(last, tf.maximum(end_of_mask - 1, 0))
    group, last = group[:-7], last[:-7]
    outside = (group < 0) | (group > 63)
    too_long = four[:-4] * two[4:-2] > 0

    def reasons() -> dict[str, tf.Tensor]:
        mask = upper_bound(end_of_mask, tf.range(tf.size(group)))
        return {
            OUTSIDE_ALPHABET: _any_per_mask(outside, mask, tf.size(counts)),
            TRUNCATED: truncated,
            TOO_LONG: _any_per_mask(too_long, mask, tf.size(counts)),
        }

    wrong = tf.reduce_any(outside | too_long) | tf.reduce_any(truncated)
    with tf.control_dependencies([_require(~wrong, reasons)]):
        starts = tf.concat([[True], last], axis=0)[:-1]
    first_char = tf.cast(tf.where(starts)[:, 0], tf.int32)
    return tf.gather(value, first_char), lower_bound(first_char, end_of_mask)


def _sum_before(x: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """For each row of x: the sum of the rows of the same mask before it."""
    total = tf.cumsum(x, exclusive=True)
    return total - tf.gather(total, first)


def _require(sound: tf.Tensor, reasons: Callable[[], dict[str, tf.Tensor]]) -> tf.Tensor:
    """If not sound, fails with the first mask that has a reason (each bool [N]), and the reason."""

    def fail() -> tf.Tensor:
        by_reason = reasons()
        wrong = tf.stack(list(by_reason.values()))
        mask = tf.argmax(tf.reduce_any(wrong, axis=0))
        reason = tf.gather(list(by_reason), tf.argmax(wrong[:, mask]))
        text = ["The RLE of mask ", tf.strings.as_string(mask), " is malformed: ", reason]
        failed = tf.debugging.Assert(False, [tf.strings.join(text)])
        with tf.control_dependencies([] if failed is None else [failed]):
            return tf.constant(False)

    return tf.cond(sound, lambda: tf.constant(True), fail)


def _any_per_mask(wrong: tf.Tensor, mask: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    return tf.math.unsorted_segment_max(tf.cast(wrong, tf.int32), mask, n) > 0


def lower_bound(ordered: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """int32, for each value: how many in `ordered` are less."""
    return _bound(tf.raw_ops.LowerBound, ordered, values)


def upper_bound(ordered: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """int32, for each value: how many in `ordered` are less or equal."""
    return _bound(tf.raw_ops.UpperBound, ordered, values)


def _bound(op: Callable[..., tf.Tensor], ordered: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    # An index, ordered[None], would make three times as many nodes to trace and to optimise.
    ordered, values = tf.expand_dims(ordered, 0), tf.expand_dims(values, 0)
    return tf.squeeze(op(sorted_inputs=ordered, values=values), 0)
