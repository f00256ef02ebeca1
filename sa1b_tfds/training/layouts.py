"""Raw batches -> what a model takes."""

from __future__ import annotations

import tensorflow as tf

from sa1b_tfds.training.config import Layout


def to_layout(batch: dict[str, tf.Tensor], layout: Layout) -> dict[str, tf.Tensor]:
    """Turns a 'raw' batch into another layout, in TensorFlow ops."""
    if layout != "raw":
        raise NotImplementedError(f"layout={layout!r} is not there yet.")
    return batch
