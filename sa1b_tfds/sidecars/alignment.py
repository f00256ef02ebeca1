"""Which rows of a sidecar belong to which file of the data, in the order of the data.

The images of a tar have one order everywhere, so that the rows of a file's images are a few runs of
consecutive records. Where the data or the sidecar has images that the other does not have, there
are more runs. Nothing but ids is compared, so the data may be of any config.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sa1b_tfds.sidecars.row_index import RowIndex


class Runs(NamedTuple):
    """Runs of records, one after the other, for each of F files of the data.

    begin: int64 [F + 1], which of the runs belong to file i: those from begin[i] to begin[i + 1].
    shard: int32 [R], of the sidecar; -1 for images without a row.
    first: int64 [R], the number of the run's first record in its shard.
    length: int64 [R], its records.
    """

    begin: np.ndarray
    shard: np.ndarray
    first: np.ndarray
    length: np.ndarray


def runs_of(index: RowIndex, ids_of_files: Sequence[np.ndarray]) -> Runs:
    """The runs of the rows of each file's images.

    Args:
      index: of the sidecar.
      ids_of_files: int64 [N] for each file, the images to read from it.
    """
    numbers = [len(ids) for ids in ids_of_files]
    file = np.repeat(np.arange(len(numbers)), numbers)
    ids = np.concatenate([np.empty(0, np.int64), *ids_of_files])
    shard, number = index.places(ids)
    follows = (shard[1:] == shard[:-1]) & (file[1:] == file[:-1])
    follows &= (shard[1:] < 0) | (number[1:] == number[:-1] + 1)
    first = np.flatnonzero(np.concatenate([[True], ~follows])[: len(ids)])
    begin = np.searchsorted(file[first], np.arange(len(numbers) + 1))
    length = np.diff([*first, len(ids)])
    return Runs(begin.astype(np.int64), shard[first], number[first], length.astype(np.int64))
