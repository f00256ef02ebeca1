"""Where training examples come from, as streams for tf.data: prepared records, or a dataset.

What a stream holds is parsed later, next to where it is decoded, so that the stream itself is cheap
to shuffle: a serialised record is one string.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from sa1b_tfds.examples.example import COLUMNS
from sa1b_tfds.segment_anything.find_builder import find_builder
from sa1b_tfds.segment_anything.mocked import is_mocked
from sa1b_tfds.sidecars.reading import OpenSidecar
from sa1b_tfds.sidecars.row_index import ids_of_files
from sa1b_tfds.sidecars.tf_rows import AlignedRows, Column, columns_of, kept, parse_rows
from sa1b_tfds.training.config import TrainingConfig

_CYCLE = 16  # files that are read in turns


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


@dataclasses.dataclass(frozen=True)
class ImageStream:
    """Images to train on.

    epoch: int64 [] seed, or None for the order of the files -> one pass over all images.
    parse: an element of that -> its Record.
    num_images: in one pass; None if that is not known.
    """

    epoch: Callable[[tf.Tensor | None], tf.data.Dataset]
    parse: Callable[[Any], Record]
    num_images: int | None


def find_stream(
    source: Any,
    config: TrainingConfig,
    data_dir: Any = None,
    shard: tuple[int, int] = (0, 1),
    sidecars: Sequence[OpenSidecar] = (),
) -> ImageStream:
    """Finds what to train on.

    Args:
      source: a dataset's name, such as 'segment_anything/original'; a TFDS builder; the folder of
        a prepared version; or a tf.data.Dataset of `tfds.load`'s elements, with JPEG and RLE not
        decoded.
      config: its split, shuffle and deterministic apply here.
      data_dir: of TFDS, for a name.
      shard: (i, n): take the i-th of n equal parts only.
      sidecars: whose columns to add.

    Raises:
      FileNotFoundError: if it is not prepared.
      MissingRows: if an image has no row in a sidecar.
      ValueError: if it is no data of SA-1B, or nothing of that kind.
    """
    if isinstance(source, tf.data.Dataset):
        return _of_dataset(source, config, shard, sidecars)
    builder = find_builder(source, data_dir)
    if is_mocked():
        return _of_mock(builder, config, shard, sidecars)
    return _of_builder(builder, config, shard, sidecars)


def _of_builder(
    builder: tfds.core.DatasetBuilder,
    config: TrainingConfig,
    shard: tuple[int, int],
    sidecars: Sequence[OpenSidecar],
) -> ImageStream:
    if not builder.info.splits:
        raise FileNotFoundError(
            f"{builder.info.full_name} is not prepared in {builder.data_path}: run `sa1b build`,"
            " or `tfds build` with `--imports sa1b_tfds`, or name another data_dir."
        )
    if (file_format := builder.info.file_format.value) != "tfrecord":
        raise ValueError(
            f"{builder.data_path} holds {file_format} files, which tf.data cannot read: prepare"
            " it with file_format='tfrecord'."
        )
    features = builder.info.features
    if "masks" in features:
        parse = parse_record
    elif "annotations" in features and "segmentation" in features["annotations"].feature:
        parse = _parse_official
    else:
        raise ValueError(f"{builder.data_path} holds no data of segment_anything: {features}")
    index, count = shard
    split = builder.info.splits[tfds.even_splits(config.split, count)[index]]
    whole = builder.info.splits[config.split]
    total = whole.num_examples
    files = [f for f in split.file_instructions if f.take]
    if not files:
        raise ValueError(f"split {config.split!r} of {builder.data_path} has no image for {shard}.")
    with_masks = config.masks_per_image > 0
    if not sidecars:
        return ImageStream(
            lambda seed: _read(files, config, seed),
            lambda record: parse(record, with_masks),
            total // count,
        )
    total = kept(sidecars, ids_of_files(builder.data_path, whole.file_instructions))
    rows = AlignedRows(sidecars, ids_of_files(builder.data_path, files))

    def parse_joined(element: dict[str, Any]) -> Record:
        record = parse(element["record"], with_masks)
        mask_count = tf.size(record.counts) if with_masks else None
        columns = parse_rows(sidecars, element["rows"], record.image_id, mask_count)
        return record._replace(columns=columns)

    return ImageStream(lambda seed: _read(files, config, seed, rows), parse_joined, total // count)


def _read(
    files: Sequence[Any],
    config: TrainingConfig,
    seed: tf.Tensor | None,
    rows: AlignedRows | None = None,
) -> tf.data.Dataset:
    """-> serialised records; or each with its rows in sidecars."""
    parts = (
        [os.fspath(f.filename) for f in files],
        np.array([f.skip for f in files], np.int64),
        np.array([f.take for f in files], np.int64),
        np.arange(len(files)),
    )

    def read(name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor, file: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(name).skip(skip).take(take)
        return records if rows is None else rows.beside(records, file)

    dataset = tf.data.Dataset.from_tensor_slices(parts)
    if config.shuffle:
        dataset = dataset.shuffle(len(files), seed=seed, reshuffle_each_iteration=False)
    dataset = dataset.interleave(
        read,
        cycle_length=min(_CYCLE, len(files)) if config.shuffle else 1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=config.deterministic,
    )
    return _shuffled(dataset, config, seed)


def _shuffled(
    dataset: tf.data.Dataset, config: TrainingConfig, seed: tf.Tensor | None
) -> tf.data.Dataset:
    if not config.shuffle:
        return dataset
    return dataset.shuffle(config.shuffle, seed=seed, reshuffle_each_iteration=False)


def _of_dataset(
    dataset: tf.data.Dataset,
    config: TrainingConfig,
    shard: tuple[int, int],
    sidecars: Sequence[OpenSidecar],
) -> ImageStream:
    if config.split != "train":
        raise ValueError(
            f"split must be 'train' with a tf.data.Dataset, got {config.split!r}: take or skip"
            " elements of the dataset."
        )
    spec = dataset.element_spec
    try:
        stored = spec["masks"]["counts"], spec["image"]
    except (TypeError, KeyError):
        stored = ()  # type: ignore[assignment]
    if not stored or any(s.dtype != tf.string for s in stored):
        raise ValueError(
            "A tf.data.Dataset must hold what tfds.load gives with decoders={'image': SkipDecoding"
            f"(), 'masks': SkipDecoding()}}, got {spec}."
        )
    keys = {sidecar.key(name) for sidecar in sidecars for name in sidecar.columns.names}
    if lacking := sorted(keys - spec.keys()):
        raise ValueError(
            f"The tf.data.Dataset has no {', '.join(lacking)}: give read_tars the same sidecars."
        )
    if is_mocked():
        dataset = dataset.map(_of_one_length)
    index, count = shard
    length = dataset.cardinality().numpy()
    return ImageStream(
        lambda seed: _shuffled(dataset.shard(count, index), config, seed),
        lambda element: _from_element(element)._replace(columns=columns_of(element, sidecars)),
        None if length < 0 else int(length) // count,
    )


def _of_mock(
    builder: tfds.core.DatasetBuilder,
    config: TrainingConfig,
    shard: tuple[int, int],
    sidecars: Sequence[OpenSidecar],
) -> ImageStream:
    """What `tfds.testing.mock_data` draws."""
    skip = tfds.decode.SkipDecoding()
    drawn = builder.as_dataset(split=config.split, decoders={"image": skip, "masks": skip})
    return _of_dataset(drawn, dataclasses.replace(config, split="train"), shard, sidecars)


def _of_one_length(element: dict[str, Any]) -> dict[str, Any]:
    """An element that `mock_data` drew, without what only some of its columns have."""
    columns = {**element["annotations"], "counts": element["masks"]["counts"]}
    n = tf.reduce_min([tf.shape(column)[0] for column in columns.values()])
    columns = {name: column[:n] for name, column in columns.items()}
    masks = {**element["masks"], "counts": columns.pop("counts")}
    return {**element, "masks": masks, "annotations": columns}


def _from_element(element: dict[str, Any]) -> Record:
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


def _parse_official(record: tf.Tensor, with_masks: bool) -> Record:
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
