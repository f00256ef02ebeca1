"""Where training examples come from, as streams for tf.data: prepared records, or a dataset.

What a stream holds is parsed later, next to where it is decoded, so that the stream itself is cheap
to shuffle: a serialised record is one string.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from sa1b_tfds.core.problems import OnError
from sa1b_tfds.examples.example import COLUMNS
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.parts import builder_at
from sa1b_tfds.segment_anything.mocked import is_mocked
from sa1b_tfds.training.chosen import chooser
from sa1b_tfds.training.chosen_records import FileSlice, find_chosen
from sa1b_tfds.training.config import TrainingConfig

_CYCLE = 16  # files that are read in turns
_ALL = ImageChoice()


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
    choice: ImageChoice = _ALL,
    missing_ids: OnError = "raise",
) -> ImageStream:
    """Finds what to train on.

    Args:
      source: a dataset's name, such as 'segment_anything/original'; a TFDS builder; the folder of
        a prepared version; or a tf.data.Dataset of `tfds.load`'s elements, with JPEG and RLE not
        decoded.
      config: its split, shuffle and deterministic apply here.
      data_dir: of TFDS, for a name.
      shard: (i, n): take the i-th of n equal parts only.
      choice: which images to take.
      missing_ids: 'raise' or 'skip', for ids of the choice that are not in the source.

    Raises:
      FileNotFoundError: if it is not prepared.
      MissingIds: if an id is not in the source and missing_ids is 'raise'.
      ValueError: if it is no data of SA-1B, or nothing of that kind; or if its ids would have to be
        known and are not.
    """
    if isinstance(source, tf.data.Dataset):
        _refuse_unknown_ids("a tf.data.Dataset", config, choice, missing_ids)
        return _of_dataset(source, config, shard, choice)
    builder = _builder(source, data_dir)
    if is_mocked():
        return _of_mock(builder, config, shard, choice)
    return _of_builder(builder, config, shard, choice, missing_ids)


def _refuse_unknown_ids(
    source: str, config: TrainingConfig, choice: ImageChoice, missing_ids: OnError
) -> None:
    if choice.ids is None:
        return
    unknown = f"which images {source} has is not known before it is read"
    if missing_ids == "raise":
        raise ValueError(
            f"missing_ids must be 'skip' for this source: {unknown}, so no missing id is found."
        )
    if config.repeat:
        raise ValueError(
            f"repeat must be False with ids for this source: {unknown}, and if it had none of"
            " them, it would be read for ever."
        )


def _builder(source: Any, data_dir: Any) -> tfds.core.DatasetBuilder:
    if isinstance(source, tfds.core.DatasetBuilder):
        return source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "source must be a dataset's name, a builder, a folder or a tf.data.Dataset, got"
            f" {source!r}."
        )
    if (epath.Path(source) / "dataset_info.json").exists():
        return builder_at(source)
    try:
        return tfds.builder(os.fspath(source), data_dir=data_dir)
    except ValueError as e:
        if not (isinstance(e, tfds.core.DatasetNotFoundError) or epath.Path(source).exists()):
            raise
        raise ValueError(  # TFDS lists all datasets that it has
            f"{os.fspath(source)!r} is no dataset's name, such as 'segment_anything/original', nor"
            " a folder with dataset_info.json. Tars are read with"
            f" read_tars({os.fspath(source)!r}, decoders={{'image': SkipDecoding(), 'masks':"
            " SkipDecoding()}), which is a source as well."
        ) from None


def _of_builder(
    builder: tfds.core.DatasetBuilder,
    config: TrainingConfig,
    shard: tuple[int, int],
    choice: ImageChoice,
    missing_ids: OnError,
) -> ImageStream:
    if not builder.info.splits:
        raise FileNotFoundError(
            f"{builder.info.full_name} is not prepared in {builder.data_path}: run `sa1b build`,"
            " or `tfds build` with `--imports sa1b_tfds`, or name another data_dir."
        )
    if (file_format := builder.info.file_format.value) != "tfrecord":
        raise ValueError(
            f"{builder.data_path} holds {file_format} files, which tf.data cannot read. Read them"
            " with sa1b_tfds.grain.dataset, which makes the same batches, with"
            " sa1b_tfds.torch.SA1BDataset or with tfds.data_source; or prepare the data with"
            " file_format='tfrecord'."
        )
    features = builder.info.features
    if "masks" in features:
        parse, id_key = _parse_columns, "image_id"
    elif "annotations" in features and "segmentation" in features["annotations"].feature:
        parse, id_key = _parse_official, "image/image_id"
    else:
        raise ValueError(f"{builder.data_path} holds no data of segment_anything: {features}")
    index, count = shard
    chosen = None
    if not choice.takes_all:
        chosen = find_chosen(builder, config.split, choice, missing_ids)
        if chosen is None:
            _refuse_unknown_ids(f"{builder.data_path}", config, choice, missing_ids)
    if chosen is None:
        split = builder.info.splits[tfds.even_splits(config.split, count)[index]]
        total = builder.info.splits[config.split].num_examples
        files = [FileSlice(f.filename, f.skip, f.take) for f in split.file_instructions if f.take]
    else:
        total = chosen.count
        files = chosen.part(index, count)
    if not files:
        raise ValueError(f"split {config.split!r} of {builder.data_path} has no image for {shard}.")
    with_masks = config.masks_per_image > 0
    is_chosen = None
    if not choice.takes_all:
        id_feature = {id_key: tf.io.FixedLenFeature([], tf.int64)}
        has = chooser(choice)

        def is_chosen(record: tf.Tensor) -> tf.Tensor:
            return has(tf.io.parse_single_example(record, id_feature)[id_key])

    return ImageStream(
        lambda seed: _read(files, config, seed, is_chosen),
        lambda record: parse(record, with_masks),
        total // count if chosen is not None or choice.takes_all else None,
    )


def _read(
    files: Sequence[FileSlice],
    config: TrainingConfig,
    seed: tf.Tensor | None,
    is_chosen: Callable[[tf.Tensor], tf.Tensor] | None,
) -> tf.data.Dataset:
    """-> serialised records, of those that are chosen."""
    parts = (
        [os.fspath(f.filename) for f in files],
        np.array([f.skip for f in files], np.int64),
        np.array([f.take for f in files], np.int64),
    )

    def read(name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(name).skip(skip).take(take)
        # Here and not later: images that are not chosen take no place in the shuffle buffer.
        return records if is_chosen is None else records.filter(is_chosen)

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
    dataset: tf.data.Dataset, config: TrainingConfig, shard: tuple[int, int], choice: ImageChoice
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
    if is_mocked():
        dataset = dataset.map(_of_one_length)
    if not choice.takes_all:
        is_chosen = chooser(choice)
        dataset = dataset.filter(lambda element: is_chosen(element["image_id"]))
    index, count = shard
    length = dataset.cardinality().numpy()
    return ImageStream(
        lambda seed: _shuffled(dataset.shard(count, index), config, seed),
        _from_element,
        None if length < 0 else int(length) // count,
    )


def _of_mock(
    builder: tfds.core.DatasetBuilder,
    config: TrainingConfig,
    shard: tuple[int, int],
    choice: ImageChoice,
) -> ImageStream:
    """What `tfds.testing.mock_data` draws."""
    skip = tfds.decode.SkipDecoding()
    drawn = builder.as_dataset(split=config.split, decoders={"image": skip, "masks": skip})
    return _of_dataset(drawn, dataclasses.replace(config, split="train"), shard, choice)


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


def _parse_columns(record: tf.Tensor, with_masks: bool) -> Record:
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
