"""The relevance map of an image as a batch shows it, for losses that weigh pixels."""

from __future__ import annotations

import tensorflow as tf

from sa1b_tfds.masks import tf_relevance
from sa1b_tfds.masks.tf_run_ends import run_ends
from sa1b_tfds.training import selection, views
from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.sources import Record


def relevance(record: Record, view: views.View, config: TrainingConfig) -> tf.Tensor:
    """float32 [M, M]: the sum of the predicted IoUs of the masks that cover each pixel.

    All masks that pass the config's filters count, not only the K that the batch holds.
    """
    weights = tf.where(selection.eligible(record, config), record.predicted_iou, 0.0)
    return tf_relevance.relevance(
        run_ends(record.counts, record.size),
        tf.size(record.counts),
        record.size,
        weights,
        tf.constant([config.mask_size, config.mask_size]),
        views.mask_window(view, config.image_size),
        view.flip,
    )
