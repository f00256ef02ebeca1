"""One image as training reads it: of a record of prepared data, or of an element of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from sa1b_tfds.examples.example import COLUMNS
from sa1b_tfds.sidecars.tf_rows import Column


class Record(NamedTuple):
    """One image and what is stored of its N masks; see `examples.example.COLUMNS`.

    All that is of masks is None if the config asks for none.
    """

    image: tf.Tensor  # string [], JPEG
    image_id: tf.Tensor  # int64 []
    size: tf.Tensor  # int32 [2], (H, W) of the masks
    counts: tf.Tensor = None  # string [N], RLE
    area: tf.Tensor = None
    bbox: tf.Tensor = None
    predicted_iou: tf.Tensor = None
    stability_score: tf.Tensor = None
    point_coords: tf.Tensor = None
    columns: Mapping[str, Column] = {}  # of sidecars, by their keys in a batch


_COLUMNS = [column for column in COLUMNS if column.name in Record._fields]


def of_element(element: Mapping[str, Any]) -> Record:
    """What `tfds.load` gives, with JPEG and RLE not decoded."""
    return Record(
        image=element["image"],
        image_id=element["image_id"],
        size=element["masks"]["size"],
        counts=element["masks"]["counts"],
        **{column.name: element["annotations"][column.name] for column in _COLUMNS},
    )


def parse_record(record: tf.Tensor, with_masks: bool) -> Record:
    """What our builder writes."""
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "image_id": tf.io.FixedLenFeature([], tf.int64),
        "masks/size": tf.io.FixedLenFeature([2], tf.int64),
    }
    if with_masks:
        features["masks/counts"] = _of_masks(tf.string)
        features |= {column.key: _of_masks(column.dtype, *column.shape) for column in _COLUMNS}
    values = tf.io.parse_single_example(record, features)
    found = Record(
        image=values["image"],
        image_id=values["image_id"],
        size=tf.cast(values["masks/size"], tf.int32),
    )
    if not with_masks:
        return found
    columns = {column.name: values[column.key] for column in _COLUMNS}
    return found._replace(counts=values["masks/counts"], **columns)


def parse_official(record: tf.Tensor, with_masks: bool) -> Record:
    """What the builder of tensorflow_datasets writes, version 1.0.0: columns as in the JSON."""
    counts = "annotations/segmentation/counts"
    features = {
        "image/content": tf.io.FixedLenFeature([], tf.string),
        "image/image_id": tf.io.FixedLenFeature([], tf.int64),
        "image/height": tf.io.FixedLenFeature([], tf.int64),
        "image/width": tf.io.FixedLenFeature([], tf.int64),
    }
    if with_masks:
        features[counts] = _of_masks(tf.string)
        features |= {column.key: _of_masks(column.dtype, *column.json_shape) for column in _COLUMNS}
    values = tf.io.parse_single_example(record, features)
    size = tf.stack([values["image/height"], values["image/width"]])
    found = Record(
        image=values["image/content"],
        image_id=values["image/image_id"],
        size=tf.cast(size, tf.int32),
    )
    if not with_masks:
        return found
    columns = {
        column.name: values[column.key][:, 0] if column.in_list else values[column.key]
        for column in _COLUMNS
    }
    return found._replace(counts=values[counts], **columns)


def _of_masks(dtype: Any, *shape: int) -> tf.io.FixedLenSequenceFeature:
    """A value of each mask, in a record."""
    return tf.io.FixedLenSequenceFeature(shape, tf.as_dtype(dtype), allow_missing=True)
