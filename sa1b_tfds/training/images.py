"""JPEG bytes -> the pixels of the model image, as a view shows them; and their normalisation.

Images stay uint8 until they are batched. Pillow, and so SAM and Hugging Face, round after the
resize too, and moving a byte costs a quarter of moving a float. One pass over the batch then
normalises.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sa1b_tfds.training.config import IMAGENET_MEAN, IMAGENET_STD, TrainingConfig
from sa1b_tfds.training.views import View

# For pixels from 0 to 255.
MEAN = (255 * np.array(IMAGENET_MEAN)).astype(np.float32)
STD = (255 * np.array(IMAGENET_STD)).astype(np.float32)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as in Pillow
_RATIOS = (1, 2, 4, 8)  # by which libjpeg can scale down while it decodes
# A ratio may leave an image too small by this factor, which is then enlarged. On photographs, that
# is where it comes as close to an antialiased resize as the next lower ratio, reduced without
# antialiasing, does; and it takes two thirds of the time (benchmarks/scaled_decoding.py).
_ENLARGED = 1.03


def decode(
    jpeg: tf.Tensor, size: tf.Tensor, view: View, config: TrainingConfig, seed: tf.Tensor
) -> tf.Tensor:
    """Decodes the part of an image that a view shows.

    Args:
      jpeg: string [], the JPEG's bytes.
      size: int32 [2], (H, W) of the original. The view's window is in its pixels.
      view: the view.
      config: its image_size, exact, scale_range and colour_jitter are used.
      seed: int64 [2], the seed of the colour jitter.

    Returns:
      uint8 [S, S, 3], black outside the image.
    """
    pixels = _window(jpeg, size, view, config)
    if config.colour_jitter:
        pixels = _jittered(_resized(pixels, view.resized, config), config.colour_jitter, seed)
        pixels = _rounded(pixels)
    else:
        # Data of `resized_1024` has the right size as it is stored.
        pixels = tf.cond(
            tf.reduce_all(tf.shape(pixels)[:2] == view.resized),
            lambda: pixels,
            lambda: _rounded(_resized(pixels, view.resized, config)),
        )
    if config.flip:
        pixels = tf.cond(view.flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    side = config.image_size
    height, width = tf.unstack(view.resized)
    rows = tf.reshape(pixels, [height, 3 * width])  # padding three axes takes ten times as long
    rows = tf.pad(rows, [[0, side - height], [0, 3 * (side - width)]])
    return tf.reshape(rows, [side, side, 3])


def normalise(pixels: tf.Tensor, resized: tf.Tensor, config: TrainingConfig) -> tf.Tensor:
    """uint8 [B, S, S, 3] -> image_dtype [B, S, S, 3], normalised, and 0 outside the image.

    resized: int32 [B, 2], (height, width) of each image in the square.
    """
    if config.image_dtype == "uint8":
        return pixels
    if config.normalise is None:
        return tf.cast(pixels, config.image_dtype)
    in_width = tf.range(3 * config.image_size) < 3 * resized[:, 1:]
    scale, offset = (
        tf.where(in_width, np.tile(channels, config.image_size), 0.0)
        for channels in (1 / STD, -MEAN / STD)
    )
    return _normalised(pixels, resized[:, 0], scale, offset, tf.as_dtype(config.image_dtype))


@tf.function(jit_compile=True, autograph=False)
def _normalised(
    pixels: tf.Tensor, height: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """Normalises in one compiled loop, which reads each byte and writes each float once.

    A condition in the loop over a row would cost half as much again. So there is none: scale and
    offset [B, 3 * S] are 0 to the right of an image, and rows below it are cleared as a whole.
    """
    side = pixels.shape[1]
    rows = tf.cast(tf.reshape(pixels, [-1, side, 3 * side]), tf.float32)
    rows = rows * scale[:, None] + offset[:, None]
    in_height = tf.range(side) < height[:, None]
    rows = tf.where(in_height[:, :, None], rows, 0.0)
    return tf.reshape(tf.cast(rows, dtype), [-1, side, side, 3])


def _window(jpeg: tf.Tensor, size: tf.Tensor, view: View, config: TrainingConfig) -> tf.Tensor:
    """uint8 [h, w, 3], the view's window, scaled down by libjpeg as far as it can."""
    window = view.window
    if config.exact:
        pixels = tf.io.decode_jpeg(jpeg, 3, dct_method="INTEGER_ACCURATE")
        window = _in_pixels_of(tf.shape(pixels)[:2], size, window)
        y, x, height, width = tf.unstack(window)
        return pixels[y : y + height, x : x + width]

    shape = tf.io.extract_jpeg_shape(jpeg)[:2]
    window = _in_pixels_of(shape, size, window)
    at_least = tf.reduce_min(window[2:] / view.resized) * _ENLARGED
    cropped = config.scale_range is not None

    def scaled(ratio: int) -> tf.Tensor:
        if not cropped:
            return tf.io.decode_jpeg(jpeg, 3, ratio)
        # libjpeg rounds the size of its scaled image up. A window starts at multiples of 8, so its
        # start is a whole pixel at each ratio (see `views`).
        stop = -(-(window[:2] + window[2:]) // ratio)
        start = window[:2] // ratio
        return tf.image.decode_and_crop_jpeg(jpeg, tf.concat([start, stop - start], 0), 3, ratio)

    # A ratio is chosen when the graph runs, by the image's size; at most one branch decodes.
    which = sum(tf.cast(at_least >= ratio, tf.int32) for ratio in _RATIOS[1:])
    return tf.switch_case(which, [lambda r=r: scaled(r) for r in _RATIOS])


def _in_pixels_of(shape: tf.Tensor, size: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Converts a window to pixels of the stored image, which may be smaller than the original."""

    def moved() -> tf.Tensor:
        scale = tf.tile(tf.cast(shape, tf.float64) / tf.cast(size, tf.float64), [2])
        corners = tf.concat([window[:2], window[:2] + window[2:]], 0)
        corners = tf.cast(tf.round(tf.cast(corners, tf.float64) * scale), tf.int32)
        start = tf.minimum(corners[:2], shape - 1)
        return tf.concat([start, tf.maximum(corners[2:] - start, 1)], 0)

    return tf.cond(tf.reduce_all(shape == size), lambda: window, moved)


def _resized(pixels: tf.Tensor, size: tf.Tensor, config: TrainingConfig) -> tf.Tensor:
    """uint8 [h, w, 3] -> float32 of 0 to 255, resized."""
    if config.exact:
        return tf.image.resize(pixels, size, antialias=True)
    # TensorFlow's kernel reads floats so much faster than bytes that the conversion pays.
    pixels = tf.cast(pixels, tf.float32)[None]
    return tf.raw_ops.ResizeBilinear(images=pixels, size=size, half_pixel_centers=True)[0]


def _rounded(pixels: tf.Tensor) -> tf.Tensor:
    """float32 -> uint8, the nearest of 0 to 255. One op rounds, clips and converts."""
    quantized = tf.raw_ops.QuantizeV2(
        input=pixels, min_range=0.0, max_range=255.0, T=tf.quint8, mode="SCALED"
    )
    return tf.bitcast(quantized.output, tf.uint8)


def _jittered(pixels: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast and saturation, in this order, by random factors near 1."""
    low, high = 1 - strength, 1 + strength
    brightness, contrast, saturation = tf.unstack(tf.random.stateless_uniform([3], seed, low, high))
    grey = tf.reduce_sum(pixels * _GREY, axis=-1, keepdims=True)
    # All three are linear in the pixels, so they are combined to one pass over the image.
    gain = brightness * contrast
    offset = brightness * (1 - contrast) * tf.reduce_mean(grey)
    return pixels * (gain * saturation) + (grey * (gain * (1 - saturation)) + offset)
