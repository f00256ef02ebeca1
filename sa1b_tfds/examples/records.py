"""An example <-> a record, the bytes that TFDS stores of it, without TensorFlow.

`serialise` gives what TFDS's ExampleSerializer gives for this dataset's features, with the fields
in the order of their names, so that the same example has the same bytes in every process and with
every version of protobuf. The files that records are in: `record_files`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sa1b_tfds.examples.example import COLUMNS, Column, Example
from sa1b_tfds.examples.tf_example import bytes_list, example_bytes, float_list, int64_list
from sa1b_tfds.masks import rle

_OTHERS = ("image", "image_id", "file_name", "masks/size", "masks/counts")


def serialise(example: Example) -> bytes:
    """The `tf.train.Example` of an example."""
    features = {
        "file_name": bytes_list([example.file_name.encode()]),
        "image": bytes_list([example.image]),
        "image_id": int64_list([example.image_id]),
        "masks/counts": bytes_list(example.masks.counts),
        "masks/size": int64_list(example.masks.size),
    }
    for column in COLUMNS:
        to_list = float_list if column.dtype is np.float32 else int64_list
        features[column.key] = to_list(example.annotations[column.name].ravel())
    return example_bytes(features)


def deserialise(record: bytes) -> Example:
    """The example of a record.

    Raises:
      ValueError: if it is no record of this dataset.
    """
    from google.protobuf import message
    from tensorflow_datasets.proto import tf_example_pb2  # loads no TensorFlow

    try:
        features = tf_example_pb2.Example.FromString(record).features.feature
        if missing := {*_OTHERS, *(column.key for column in COLUMNS)} - features.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        height, width = features["masks/size"].int64_list.value
        return Example(
            image=features["image"].bytes_list.value[0],
            image_id=features["image_id"].int64_list.value[0],
            file_name=features["file_name"].bytes_list.value[0].decode(),
            masks=rle.check(list(features["masks/counts"].bytes_list.value), (height, width)),
            annotations={c.name: _array(features[c.key], c) for c in COLUMNS},
        )
    except (message.DecodeError, IndexError, ValueError) as e:
        raise ValueError(f"it is no record of segment_anything 2: {e}") from e


def _array(feature: Any, column: Column) -> np.ndarray:
    is_float = column.dtype is np.float32
    values = feature.float_list.value if is_float else feature.int64_list.value
    return np.array(values, column.dtype).reshape(-1, *column.shape)
