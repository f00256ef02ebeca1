"""Where the row of each image is, in the shards of a sidecar; and which images data has, and where.

No TensorFlow and no TFDS here: the processes of `read_tars` import it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from sa1b_tfds.building.prepared import TARS
from sa1b_tfds.building.prepared_ids import ids_of_shards
from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.examples import record_ends
from sa1b_tfds.sidecars.source import check_lists_tars, ids_of, sidecar_folder


class MissingRows(ValueError):
    """Images have no row in a sidecar.

    Args:
      folder: of the sidecar.
      ids: of the images.

    Attributes:
      folder, ids: the same.
    """

    def __init__(self, folder: epath.PathLike, ids: Sequence[int]):
        super().__init__(
            f"The sidecar {os.fspath(folder)} has no row of {counted(len(ids), 'image')}:"
            f" {first_few([str(image_id) for image_id in ids])}. Write the rows of their tars, or"
            " read with Sidecar(path=..., missing='skip') or with a value for each column."
        )
        self.folder = folder
        self.ids = ids

    def __reduce__(self) -> tuple:
        return type(self), (self.folder, self.ids)


class RowIndex:
    """Where the rows of a sidecar are. Memory: 20 bytes an image.

    Args:
      folder: of the sidecar's version.

    Attributes:
      folder: the same.
      paths: of the shards.

    Raises:
      FileNotFoundError: if a shard is gone.
    """

    def __init__(self, folder: epath.Path):
        self.folder = folder
        prepared = sidecar_folder(check_lists_tars(folder)).prepared()
        files = [file for tar in prepared.tars for file in prepared.shard_files[tar.archive]]
        self.paths = [file.path for file in files if file.path is not None]
        if len(self.paths) < len(files):
            lost = len(files) - len(self.paths)
            raise FileNotFoundError(f"{folder} lacks {lost} of its {len(files)} shards.")
        lengths = [file.shard.examples for file in files]
        ends = np.cumsum(lengths, dtype=np.int64)
        self._numbers = [range(end - n, end) for end, n in zip(ends.tolist(), lengths, strict=True)]
        ids = np.concatenate([np.empty(0, np.int64), *map(ids_of, prepared.tars)])
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._shard = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[order]
        self._number = (np.arange(len(ids)) - np.repeat(ends - lengths, lengths))[order]

    def places(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int32 shard, int64 number in it) of each image's row; the shard is -1 without a row."""
        if not len(self._ids):
            return np.full(len(ids), -1, np.int32), np.zeros(len(ids), np.int64)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        found = self._ids[at] == ids
        return np.where(found, self._shard[at], -1), np.where(found, self._number[at], 0)

    def record(self, image_id: int) -> bytes | None:
        """The row of an image as a record, read from the disk; None if it has none.

        Raises:
          ValueError: if the shard is damaged.
        """
        [shard], [number] = self.places(np.array([image_id]))
        if shard < 0:
            return None
        try:
            return record_ends.read_record(self.paths[shard], self._numbers[shard], int(number))
        except IndexError as e:
            raise ValueError(f"{self.paths[shard]} has no record {number}: it is damaged.") from e


def ids_of_files(folder: epath.Path, files: Sequence[Any]) -> list[np.ndarray]:
    """The image ids in parts of the shards of prepared data, in their order.

    Args:
      folder: of the prepared data.
      files: TFDS's file instructions: which records of which shard.

    Raises:
      FileNotFoundError: if a shard is gone.
      ValueError: if the data does not list its tars, or the list is damaged.
    """
    if (of_shard := ids_of_shards(check_lists_tars(folder))) is None:
        raise ValueError(f"{folder / TARS} is damaged, so it is not known which image is where.")
    found = []
    for file in files:
        if (ids := of_shard.get(epath.Path(file.filename).name)) is None:
            raise FileNotFoundError(f"{file.filename} is not there: put it back, or build again.")
        found.append(ids[file.skip : None if file.take < 0 else file.skip + file.take])
    return found
