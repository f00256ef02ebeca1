"""The geometry of one example: which part of an image is seen, at what size, mirrored or not.

The same `View` moves an image's pixels, masks, boxes and points, so that they stay together.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from sa1b_tfds.training.config import TrainingConfig

# Crops begin and end at multiples of this, which are whole pixels in libjpeg's scaled images too.
_STEP = 8


class View(NamedTuple):
    """A window of the original, resized to the top left of the square model image.

    window: int32 [4], (y, x, height, width) in pixels of the original, inside it.
    resized: int32 [2], (height, width) in the model image, at most S. The rest is padding.
    flip: bool [], whether it is mirrored left to right within `resized`.
    """

    window: tf.Tensor
    resized: tf.Tensor
    flip: tf.Tensor

    @property
    def scale(self) -> tf.Tensor:
        """float32 [2], (x, y), model pixels per pixel of the original."""
        scale = tf.cast(self.resized, tf.float64) / tf.cast(self.window[2:], tf.float64)
        return tf.cast(scale[::-1], tf.float32)


def whole(size: tf.Tensor, config: TrainingConfig) -> View:
    """The view of a whole image of size int32 [2]."""
    side = config.image_size
    if config.resize == "square":
        resized = tf.constant([side, side])
    else:
        resized = _scaled(size, side / tf.cast(tf.reduce_max(size), tf.float64))
    return View(tf.pad(size, [[2, 0]]), resized, tf.constant(False))


def random(size: tf.Tensor, config: TrainingConfig, seed: tf.Tensor) -> View:
    """A random view by the config's flip and scale_range, from a seed int64 [2]."""
    view = whole(size, config)
    if config.scale_range is None and not config.flip:
        return view
    uniform = tf.unstack(tf.random.stateless_uniform([4], seed, dtype=tf.float64))
    if config.scale_range is not None:
        view = _jittered(size, config, uniform[:3])
    if config.flip:
        view = view._replace(flip=uniform[3] < config.flip)
    return view


def _jittered(size: tf.Tensor, config: TrainingConfig, uniform: list[tf.Tensor]) -> View:
    side, (low, high) = config.image_size, config.scale_range or (1.0, 1.0)
    factor = low + uniform[0] * (high - low)
    fitting = size if config.resize == "square" else tf.reduce_max(size) * tf.ones_like(size)
    # How much of the original fits into the square, on each axis.
    held = tf.cast(tf.cast(fitting, tf.float64) / factor / _STEP + 0.5, tf.int32) * _STEP
    held = tf.maximum(held, _STEP)
    cropped = held < size
    shape = tf.where(cropped, held, size)
    scale = side / tf.cast(held, tf.float64)
    resized = tf.where(cropped, side, tf.minimum(_scaled(size, scale), side))
    room = tf.cast((size - shape) // _STEP + 1, tf.float64)
    corner = tf.cast(tf.stack(uniform[1:]) * room, tf.int32) * _STEP
    return View(tf.concat([corner, shape], axis=0), resized, tf.constant(False))


def _scaled(size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Scales a size by SAM's rule (`ResizeLongestSide.get_preprocess_shape`)."""
    return tf.maximum(tf.cast(tf.cast(size, tf.float64) * scale + 0.5, tf.int32), 1)


def mask_window(view: View, side: int) -> tf.Tensor:
    """int32 [4], the window for `decode_masks` that the whole square shows, with its padding.

    It is rounded to whole pixels of the original, which are no larger than model pixels.
    """
    shown = side * tf.cast(view.window[2:], tf.float64) / tf.cast(view.resized, tf.float64)
    shown_height, shown_width = tf.unstack(tf.cast(shown + 0.5, tf.int32))
    y, x, _, width = tf.unstack(view.window)
    # Padding is to the right of a mirrored image too, which is to the left in the original.
    x = tf.where(view.flip, x + width - shown_width, x)
    return tf.stack([y, x, shown_height, shown_width])


def to_model(points: tf.Tensor, view: View) -> tf.Tensor:
    """float [..., 2], (x, y) in pixels of the window -> float32 [..., 2] in the model image.

    This is SAM's rule (`ResizeLongestSide.apply_coords`): a pixel's index times new side / old
    side.
    """
    points = tf.cast(points, tf.float32)
    last = tf.cast(view.window[3] - 1, tf.float32)
    x = tf.where(view.flip, last - points[..., 0], points[..., 0])
    return tf.stack([x, points[..., 1]], axis=-1) * view.scale
