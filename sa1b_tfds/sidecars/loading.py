"""Prepared data and sidecars -> elements as `tfds.load` gives them, with the columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets.public_api as tfds

from sa1b_tfds.segment_anything import reading
from sa1b_tfds.sidecars.reading import OpenSidecar
from sa1b_tfds.sidecars.row_index import ids_of_files
from sa1b_tfds.sidecars.tf_rows import AlignedRows, kept, parse_rows


def load(
    builder: tfds.core.DatasetBuilder,
    sidecars: Sequence[OpenSidecar],
    split: str,
    decoders: Any,
) -> tf.data.Dataset:
    """Reads the files of a split one after the other; see `sa1b_tfds.sidecar.load`."""
    files = [f for f in builder.info.splits[split].file_instructions if f.take]
    ids = ids_of_files(builder.data_path, files)
    number = kept(sidecars, np.concatenate(ids))
    rows = AlignedRows(sidecars, ids)
    features = builder.info.features

    def read(name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor, file: tf.Tensor) -> tf.data.Dataset:
        return rows.beside(tf.data.TFRecordDataset(name).skip(skip).take(take), file)

    dataset = tf.data.Dataset.from_tensor_slices(
        (
            [os.fspath(f.filename) for f in files],
            np.array([f.skip for f in files], np.int64),
            np.array([f.take for f in files], np.int64),
            np.arange(len(files)),
        )
    )
    dataset = dataset.flat_map(tf.autograph.experimental.do_not_convert(read))
    dataset = decoded(dataset, features, decoders, sidecars)
    return dataset.apply(tf.data.experimental.assert_cardinality(number))


def decoded(
    dataset: tf.data.Dataset, features: Any, decoders: Any, sidecars: Sequence[OpenSidecar]
) -> tf.data.Dataset:
    """Decodes records of the data, and their rows in sidecars, with bounded memory.

    Args:
      dataset: records; or, with sidecars, dicts of `record` and `rows`.
      features, decoders: as TFDS has them.
      sidecars: of the rows.
    """
    large = reading.decodes_large_masks(features, decoders)
    if isinstance(decoders, tfds.decode.PartialDecoding):
        features = decoders.extract_features(features)
        decoders = decoders.decoders

    def decode(element: Any) -> dict[str, Any]:
        if not sidecars:
            return features.deserialize_example(element, decoders=decoders)
        record = element["record"]
        stored = tf.io.parse_single_example(
            record,
            {
                "image_id": tf.io.FixedLenFeature([], tf.int64),
                "masks/counts": tf.io.VarLenFeature(tf.string),
            },
        )
        mask_count = tf.size(stored["masks/counts"].values)
        columns = parse_rows(sidecars, element["rows"], stored["image_id"], mask_count)
        example = features.deserialize_example(record, decoders=decoders)
        return {**example, **{key: column.values for key, column in columns.items()}}

    dataset = dataset.map(decode, num_parallel_calls=1 if large else tf.data.AUTOTUNE)
    if large:
        return dataset.with_options(reading.one_at_a_time())
    return dataset.prefetch(tf.data.AUTOTUNE)
