"""TFDS's own data, with pycocotools in a numpy_function, as its catalog decodes masks."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from pycocotools import mask as coco_mask
from served import served
from tensorflow_datasets.datasets.segment_anything import segment_anything_dataset_builder

from loaders import BATCH, IMAGE, MASK, MASKS, SHUFFLE, sample


def prepare(tars: pathlib.Path, folder: pathlib.Path) -> None:
    builder = segment_anything_dataset_builder.Builder(data_dir=folder)
    with served(tars) as links:
        config = tfds.download.DownloadConfig(manual_dir=links)
        builder.download_and_prepare(download_dir=links / "downloads", download_config=config)


def batches(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    builder = segment_anything_dataset_builder.Builder(data_dir=folder)
    dataset = builder.as_dataset(
        split="train",
        shuffle_files=True,
        # So that the shuffle buffer holds JPEGs.
        decoders={"image": {"content": tfds.decode.SkipDecoding()}},
        # TFDS would keep the decoded images of a dataset as small as this one.
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    return iter(
        dataset.repeat()
        .shuffle(SHUFFLE)
        .map(_make, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _make(example: dict[str, Any]) -> dict[str, tf.Tensor]:
    annotations = example["annotations"]
    size = annotations["segmentation"]["size"][0]
    chosen = tf.random.shuffle(tf.range(tf.shape(annotations["id"])[0]))[:MASKS]
    counts = tf.gather(annotations["segmentation"]["counts"], chosen)
    boxes = tf.gather(annotations["bbox"], chosen)
    points = tf.gather(annotations["point_coords"][:, 0], chosen)
    masks, points, boxes = tf.numpy_function(
        _targets, [counts, size, boxes, points], [tf.uint8, tf.float32, tf.float32]
    )
    return {
        "image": _pixels(example["image"]["content"]),
        "masks": tf.ensure_shape(masks, [MASKS, MASK, MASK]),
        "points": tf.ensure_shape(points, [MASKS, 1, 2]),
        "boxes": tf.ensure_shape(boxes, [MASKS, 4]),
    }


def _pixels(jpeg: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(jpeg, channels=3)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    height, width = tf.unstack(tf.cast(size * (IMAGE / tf.reduce_max(size)) + 0.5, tf.int32))
    image = (tf.image.resize(image, (height, width)) - sample.MEAN) / sample.STD
    return tf.image.pad_to_bounding_box(image, 0, 0, IMAGE, IMAGE)


def _targets(
    counts: np.ndarray, size: np.ndarray, boxes: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, ...]:
    shape = size.tolist()
    masks = [sample.sampled(coco_mask.decode({"size": shape, "counts": c})) for c in counts]
    y0, x0, y1, x1 = (boxes * (shape * 2)).T
    made = sample.targets(masks, np.stack([x0, y0, x1 - x0, y1 - y0], axis=1), points, shape)
    return made["masks"], made["points"], made["boxes"]
