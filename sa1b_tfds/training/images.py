"""JPEG bytes -> the pixels of the model image, as a view shows them."""

from __future__ import annotations

import tensorflow as tf

from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.views import View

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def decode(jpeg: tf.Tensor, size: tf.Tensor, view: View, config: TrainingConfig) -> tf.Tensor:
    """float32 [h, w, 3] of 0 to 255, with (h, w) = view.resized.

    size: int32 [2], of the original, in whose pixels the view's window is.
    """
    del size
    pixels = tf.io.decode_jpeg(jpeg, 3, dct_method="INTEGER_ACCURATE" if config.exact else "")
    y, x, height, width = tf.unstack(view.window)
    pixels = pixels[y : y + height, x : x + width]
    pixels = tf.image.resize(pixels, view.resized, antialias=config.exact)
    return tf.cond(view.flip, lambda: pixels[:, ::-1], lambda: pixels)


def finish(pixels: tf.Tensor, config: TrainingConfig) -> tf.Tensor:
    """Normalises and pads to [S, S, 3]."""
    if config.normalise == "imagenet":
        pixels = (pixels - tf.constant(MEAN)) / tf.constant(STD)
    if config.image_dtype == "uint8":
        pixels = tf.saturate_cast(tf.round(pixels), tf.uint8)
    else:
        pixels = tf.cast(pixels, config.image_dtype)
    height, width = tf.unstack(tf.shape(pixels)[:2])
    side = config.image_size
    pixels = tf.pad(pixels, [[0, side - height], [0, side - width], [0, 0]])
    return tf.ensure_shape(pixels, [side, side, 3])
