"""Where training examples come from, as streams for tf.data: prepared records, or a dataset.

What a stream holds is parsed later, next to where it is decoded, so that the stream itself is cheap
to shuffle: a serialised record is one string.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from sa1b_tfds.core.problems import OnError
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.segment_anything.find_builder import find_builder
from sa1b_tfds.segment_anything.mocked import is_mocked
from sa1b_tfds.sidecars.reading import OpenSidecar
from sa1b_tfds.sidecars.row_index import ids_of_files
from sa1b_tfds.sidecars.tf_rows import AlignedRows, columns_of, kept, parse_rows
from sa1b_tfds.training.chosen import chooser
from sa1b_tfds.training.chosen_records import FileSlice, find_chosen
from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.record import Record, of_element, parse_official, parse_record

_CYCLE = 16  # files that are read in turns
_ALL = ImageChoice()


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
      choice: which images to take.
      missing_ids: 'raise' or 'skip', for ids of the choice that are not in the source.
      sidecars: whose columns to add.

    Raises:
      FileNotFoundError: if it is not prepared.
      MissingIds: if an id is not in the source and missing_ids is 'raise'.
      MissingRows: if a chosen image has no row in a sidecar.
      ValueError: if it is no data of SA-1B, or nothing of that kind; or if its ids would have to be
        known and are not.
    """
    if isinstance(source, tf.data.Dataset):
        _refuse_unknown_ids("a tf.data.Dataset", config, choice, missing_ids)
        return _of_dataset(source, config, shard, choice, sidecars)
    builder = find_builder(source, data_dir)
    if is_mocked():
        return _of_mock(builder, config, shard, choice, sidecars)
    return _of_builder(builder, config, shard, choice, missing_ids, sidecars)


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


def _of_builder(
    builder: tfds.core.DatasetBuilder,
    config: TrainingConfig,
    shard: tuple[int, int],
    choice: ImageChoice,
    missing_ids: OnError,
    sidecars: Sequence[OpenSidecar],
) -> ImageStream:
    if not builder.info.splits:
        raise FileNotFoundError(
            f"{builder.info.full_name} is not prepared in {builder.data_path}: run `sa1b build`,"
            " or `tfds build` with `--imports sa1b_tfds`, or name another data_dir."
        )
    if os.fspath(builder.data_path).startswith("s3:/"):
        raise ValueError(
            f"TensorFlow has no file system for s3://, so tf.data cannot read {builder.data_path}."
            " Read it with sa1b_tfds.grain.dataset, which makes the same batches, or with"
            " sa1b_tfds.torch.SA1BDataset; or copy it to a disk."
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
        parse, id_key = parse_record, "image_id"
    elif "annotations" in features and "segmentation" in features["annotations"].feature:
        parse, id_key = parse_official, "image/image_id"
    else:
        raise ValueError(f"{builder.data_path} holds no data of segment_anything: {features}")
    index, count = shard
    chosen = None
    if not choice.takes_all:
        chosen = find_chosen(builder, config.split, choice, missing_ids)
        if chosen is None:
            _refuse_unknown_ids(f"{builder.data_path}", config, choice, missing_ids)
    whole = builder.info.splits[config.split]
    if chosen is None:
        split = builder.info.splits[tfds.even_splits(config.split, count)[index]]
        total = whole.num_examples
        files = [FileSlice(f.filename, f.skip, f.take) for f in split.file_instructions if f.take]
    else:
        total = chosen.count
        files = chosen.part(index, count)
    if not files:
        raise ValueError(f"split {config.split!r} of {builder.data_path} has no image for {shard}.")
    rows = None
    if sidecars:
        ids = np.concatenate(ids_of_files(builder.data_path, whole.file_instructions))
        total = kept(sidecars, ids[choice.has(ids)])
        rows = AlignedRows(sidecars, ids_of_files(builder.data_path, files))
    with_masks = config.masks_per_image > 0
    is_chosen = None
    if not choice.takes_all:
        id_feature = {id_key: tf.io.FixedLenFeature([], tf.int64)}
        has = chooser(choice)

        def is_chosen(record: tf.Tensor) -> tf.Tensor:
            return has(tf.io.parse_single_example(record, id_feature)[id_key])

    def parse_element(element: Any) -> Record:
        if rows is None:
            return parse(element, with_masks)
        record = parse(element["record"], with_masks)
        mask_count = tf.size(record.counts) if with_masks else None
        columns = parse_rows(sidecars, element["rows"], record.image_id, mask_count)
        return record._replace(columns=columns)

    return ImageStream(
        lambda seed: _read(files, config, seed, is_chosen, rows),
        parse_element,
        total // count if chosen is not None or choice.takes_all else None,
    )


def _read(
    files: Sequence[FileSlice],
    config: TrainingConfig,
    seed: tf.Tensor | None,
    is_chosen: Callable[[tf.Tensor], tf.Tensor] | None,
    rows: AlignedRows | None,
) -> tf.data.Dataset:
    """-> serialised records of chosen images; with sidecars, dicts of `record` and `rows`."""
    parts = (
        [os.fspath(f.filename) for f in files],
        np.array([f.skip for f in files], np.int64),
        np.array([f.take for f in files], np.int64),
        np.arange(len(files)),
    )

    def read(name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor, file: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(name).skip(skip).take(take)
        # Here and not later: images that are not chosen take no place in the shuffle buffer.
        if rows is not None:
            return rows.beside(records, file, is_chosen)
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
    dataset: tf.data.Dataset,
    config: TrainingConfig,
    shard: tuple[int, int],
    choice: ImageChoice,
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
    if not choice.takes_all:
        is_chosen = chooser(choice)
        dataset = dataset.filter(lambda element: is_chosen(element["image_id"]))
    index, count = shard
    length = dataset.cardinality().numpy()
    return ImageStream(
        lambda seed: _shuffled(dataset.shard(count, index), config, seed),
        lambda element: of_element(element)._replace(columns=columns_of(element, sidecars)),
        None if length < 0 else int(length) // count,
    )


def _of_mock(
    builder: tfds.core.DatasetBuilder,
    config: TrainingConfig,
    shard: tuple[int, int],
    choice: ImageChoice,
    sidecars: Sequence[OpenSidecar],
) -> ImageStream:
    """What `tfds.testing.mock_data` draws."""
    skip = tfds.decode.SkipDecoding()
    drawn = builder.as_dataset(split=config.split, decoders={"image": skip, "masks": skip})
    return _of_dataset(drawn, dataclasses.replace(config, split="train"), shard, choice, sidecars)


def _of_one_length(element: dict[str, Any]) -> dict[str, Any]:
    """An element that `mock_data` drew, without what only some of its columns have."""
    columns = {**element["annotations"], "counts": element["masks"]["counts"]}
    n = tf.reduce_min([tf.shape(column)[0] for column in columns.values()])
    columns = {name: column[:n] for name, column in columns.items()}
    masks = {**element["masks"], "counts": columns.pop("counts")}
    return {**element, "masks": masks, "annotations": columns}
