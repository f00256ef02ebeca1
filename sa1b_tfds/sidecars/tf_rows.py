"""Rows of sidecars as tf.data streams in step with files of the data, and a row as tensors.

Everything is TensorFlow ops on constants, so that it travels to the workers of a tf.data service.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sa1b_tfds.sidecars.alignment import Runs, runs_of
from sa1b_tfds.sidecars.columns import IMAGE_ID, MASK_COUNT, UNKNOWN, Columns
from sa1b_tfds.sidecars.reading import OpenSidecar

# AutoGraph would take seconds to find that there is no Python control flow on tensors here.
_plain = tf.autograph.experimental.do_not_convert


class Column(NamedTuple):
    """What a sidecar has of an image.

    values: [...], or [N, ...] for the N masks.
    padding: the value of a mask that there is not; None if the values are not of masks.
    is_spatial: whether it is a map of the image.
    """

    values: tf.Tensor
    padding: tf.Tensor | None
    is_spatial: bool


class AlignedRows:
    """The rows of several sidecars, for each file of the data.

    Args:
      sidecars: open ones.
      ids_of_files: int64 [N], the images that are read from each file.
    """

    def __init__(self, sidecars: Sequence[OpenSidecar], ids_of_files: Sequence[np.ndarray]):
        self._sidecars = sidecars
        # Outside of the graphs, each of which would hold them again.
        with tf.device("cpu"):
            self._runs = [
                Runs(*map(tf.constant, runs_of(sidecar.index, ids_of_files)))
                for sidecar in sidecars
            ]
            self._paths = [
                tf.constant([os.fspath(path) for path in sidecar.index.paths], tf.string)
                for sidecar in sidecars
            ]

    def beside(
        self,
        records: tf.data.Dataset,
        file: tf.Tensor,
        is_chosen: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tf.data.Dataset:
        """Dicts of `record` and `rows`, a tuple, for the images of one file that are kept.

        Args:
          records: of the file.
          file: int64 [], its number.
          is_chosen: a record -> bool [], whether to take its image. None takes all.
        """
        rows = tuple(map(_rows, self._paths, self._runs, itertools.repeat(file)))
        dataset = tf.data.Dataset.zip({"record": records, "rows": rows})
        if is_chosen is not None:
            dataset = dataset.filter(_plain(lambda element: is_chosen(element["record"])))
        skipping = [i for i, s in enumerate(self._sidecars) if s.missing == "skip"]
        if not skipping:
            return dataset
        return dataset.filter(
            _plain(lambda element: tf.reduce_all([element["rows"][i] != "" for i in skipping]))
        )


def _rows(paths: tf.Tensor, runs: Runs, file: tf.Tensor) -> tf.data.Dataset:
    """The rows of a file's images, as records; '' for an image without a row."""
    own = slice(runs.begin[file], runs.begin[file + 1])
    each = tf.data.Dataset.from_tensor_slices(
        tuple(part[own] for part in (runs.shard, runs.first, runs.length))
    )

    def read(shard: tf.Tensor, first: tf.Tensor, length: tf.Tensor) -> tf.data.Dataset:
        there = shard >= 0
        number = tf.where(there, length, 0)
        path = paths[tf.maximum(shard, 0)]
        rows = tf.data.TFRecordDataset(path).skip(first).take(number)
        none = tf.data.Dataset.from_tensors(tf.constant("")).repeat(length - number)
        return rows.concatenate(none)

    return each.flat_map(_plain(read))


def kept(sidecars: Sequence[OpenSidecar], ids: np.ndarray) -> int:
    """How many of these images no sidecar leaves out.

    Raises:
      MissingRows: if an image has no row where it must have one.
      ValueError: if no image is left.
    """
    number = int(np.logical_and.reduce([sidecar.check(ids) for sidecar in sidecars]).sum())
    if not number:
        names = ", ".join(os.fspath(sidecar.folder) for sidecar in sidecars)
        raise ValueError(f"None of the images has a row in {names}: is it a sidecar of other data?")
    return number


def parse_rows(
    sidecars: Sequence[OpenSidecar],
    rows: Sequence[tf.Tensor],
    image_id: tf.Tensor,
    mask_count: tf.Tensor | None,
) -> dict[str, Column]:
    """The columns of an image, by their keys in a batch or an element.

    An assertion compares the image's id and the number of its masks with the row's.

    Args:
      sidecars: open ones.
      rows: string [], a row of each of them; '' for an image without a row.
      image_id: int64 [].
      mask_count: int32 [], the number of masks. None, if it is not known, does not compare it.
    """
    found: dict[str, Column] = {}
    for sidecar, row in zip(sidecars, rows, strict=True):
        values = _values(sidecar, row, image_id, mask_count)
        found |= columns_of({sidecar.key(name): value for name, value in values.items()}, [sidecar])
    return found


def columns_of(element: Mapping[str, Any], sidecars: Sequence[OpenSidecar]) -> dict[str, Column]:
    """The columns of sidecars in an element that has them by their keys."""
    return {
        sidecar.key(name): Column(
            element[sidecar.key(name)],
            _constant(sidecar.padding[name]) if name in sidecar.padding else None,
            sidecar.columns.is_spatial(name),
        )
        for sidecar in sidecars
        for name in sidecar.columns.names
    }


def _values(
    sidecar: OpenSidecar, row: tf.Tensor, image_id: tf.Tensor, mask_count: tf.Tensor | None
) -> dict[str, tf.Tensor]:
    def parsed() -> dict[str, tf.Tensor]:
        values = _parse(sidecar.columns, row)
        right = values[IMAGE_ID] == image_id
        if mask_count is not None:
            count = values[MASK_COUNT]
            right &= (count == tf.cast(mask_count, tf.int64)) | (count == UNKNOWN)
        said = [
            f"The sidecar {os.fspath(sidecar.folder)} was made of other data: its row is of image",
            values[IMAGE_ID],
            "with this number of masks:",
            values[MASK_COUNT],
            "and the image is",
            image_id,
            *([] if mask_count is None else ["with", mask_count]),
        ]
        with tf.control_dependencies([tf.debugging.Assert(right, said)]):
            return {name: tf.identity(values[name]) for name in sidecar.columns.names}

    def defaults() -> dict[str, tf.Tensor]:
        return {name: _default(sidecar, name, mask_count) for name in sidecar.columns.names}

    may_lack = sidecar.missing == "default"
    values = tf.cond(row == "", defaults, parsed) if may_lack else parsed()
    shape = sidecar.columns.shape
    return {name: tf.ensure_shape(value, shape(name)) for name, value in values.items()}


def _parse(columns: Columns, row: tf.Tensor) -> dict[str, tf.Tensor]:
    number = tf.io.FixedLenFeature([], tf.int64)
    stored: dict[str, Any] = {IMAGE_ID: number, MASK_COUNT: number}
    for name in columns.names:
        dtype = tf.string if columns.is_text(name) or columns.is_array(name) else tf.int64
        if columns.is_per_mask(name) and not columns.is_array(name):
            stored[name] = tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)
        else:
            stored[name] = tf.io.FixedLenFeature([], dtype)
    values = tf.io.parse_single_example(row, stored)
    for name in columns.names:
        if columns.is_array(name):
            shape = [-1 if side is None else side for side in columns.shape(name)]
            raw = tf.io.decode_raw(values[name], tf.as_dtype(columns.dtype(name)))
            values[name] = tf.reshape(raw, shape)
        elif not columns.is_text(name):
            values[name] = tf.cast(values[name], tf.as_dtype(columns.dtype(name)))
    return values


def _default(sidecar: OpenSidecar, name: str, mask_count: tf.Tensor | None) -> tf.Tensor:
    value = _constant(sidecar.default_values[name])
    if not sidecar.columns.is_per_mask(name):
        return value
    number = tf.constant(0) if mask_count is None else tf.cast(mask_count, tf.int32)
    return tf.broadcast_to(value, tf.concat([[number], tf.shape(value)], axis=0))


def _constant(value: Any) -> tf.Tensor:
    if value.dtype == object:
        return tf.constant(value.item(), tf.string)
    return tf.constant(np.ascontiguousarray(value).reshape(value.shape))
