"""Which images a choice takes, in TensorFlow ops; `examples/image_choice.py` has it in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from sa1b_tfds.examples.image_choice import INCREMENT, LAST_SHIFT, STEPS, ImageChoice


def chooser(choice: ImageChoice) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function: int64 [], the id of an image -> bool [], whether the choice takes it."""
    ids = None
    if choice.ids is not None:
        # Outside of the graphs, each of which would hold the ids again, in every copy of it.
        with tf.device("cpu"):
            ids = tf.constant(choice.ids.ids)

    def is_chosen(image_id: tf.Tensor) -> tf.Tensor:
        taken = tf.constant(True)
        if ids is not None:
            # A binary search: millions of ids take as long as a few.
            place = tf.minimum(tf.searchsorted(ids, [image_id])[0], tf.size(ids) - 1)
            taken = ids[place] == image_id
        if choice.holdout:
            high = tf.cast(tf.bitwise.right_shift(hash_of(image_id), _uint64(32)), tf.int64)
            taken &= (high < choice.threshold) == (choice.holdout_part == "val")
        return taken

    return is_chosen


def hash_of(image_id: tf.Tensor) -> tf.Tensor:
    """uint64, the hash that `image_choice.hash_of` gives for int64."""
    mixed = tf.bitcast(image_id, tf.uint64) + _uint64(INCREMENT)
    for shift, factor in STEPS:
        mixed = _xor_shifted(mixed, shift) * _uint64(factor)
    return _xor_shifted(mixed, LAST_SHIFT)


def _xor_shifted(x: tf.Tensor, shift: int) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _uint64(shift)))


def _uint64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)
