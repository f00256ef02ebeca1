"""Where the records of chosen images are in prepared data, without reading a record."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from sa1b_tfds.building.prepared_ids import ids_of_shards
from sa1b_tfds.core.problems import OnError
from sa1b_tfds.examples.id_set import check_missing
from sa1b_tfds.examples.image_choice import ImageChoice


class FileSlice(NamedTuple):
    """Consecutive records of a file: `take` of them after `skip`."""

    filename: Any
    skip: int
    take: int


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenRecords:
    """The records of the chosen images in a split.

    files: the shards of the split.
    numbers: int64 [N] for each, which of its records are chosen, ascending.
    """

    files: Sequence[epath.PathLike]
    numbers: Sequence[np.ndarray]

    @property
    def count(self) -> int:
        """The number of chosen images."""
        return sum(map(len, self.numbers))

    def part(self, index: int, count: int) -> list[FileSlice]:
        """The slices of files that hold one of `count` equal parts of the chosen images.

        A slice begins and ends with a chosen image; images between them may not be chosen.
        """
        first, last = (self.count * i // count for i in (index, index + 1))
        slices = []
        begin = 0
        for file, numbers in zip(self.files, self.numbers, strict=True):
            own = numbers[max(first - begin, 0) : max(last - begin, 0)]
            if len(own):
                slices.append(FileSlice(file, int(own[0]), int(own[-1] - own[0]) + 1))
            begin += len(numbers)
        return slices


def find_chosen(
    builder: tfds.core.DatasetBuilder, split: str, choice: ImageChoice, missing_ids: OnError
) -> ChosenRecords | None:
    """Finds the records of the chosen images.

    Returns:
      None if the data does not list its images, as that of the official builder.

    Raises:
      MissingIds: if an id of the choice is not in the data and missing_ids is 'raise'.
      FileNotFoundError: if a shard is gone.
      ValueError: if the split has no chosen image.
    """
    ids = ids_of_shards(builder.data_path)
    if ids is None:
        return None
    if choice.ids is not None:
        there = np.concatenate([np.empty(0, np.int64), *ids.values()])
        missing = choice.ids.not_in(there)
        where = os.fspath(builder.data_path)
        check_missing(missing, len(choice.ids), where, missing_ids, "missing_ids='skip'")
    files, numbers = [], []
    for file in builder.info.splits[split].file_instructions:
        if (own := ids.get(epath.Path(file.filename).name)) is None:
            raise FileNotFoundError(f"{file.filename} is not there: put it back, or build again.")
        stop = len(own) if file.take < 0 else file.skip + file.take
        files.append(file.filename)
        numbers.append(file.skip + np.flatnonzero(choice.has(own[file.skip : stop])))
    chosen = ChosenRecords(files, numbers)
    if not chosen.count:
        raise ValueError(
            f"split {split!r} of {builder.data_path} has none of the chosen images: see ids,"
            " holdout and holdout_part."
        )
    return chosen
