"""Prepared array_record data and sidecars as one data source, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets.public_api as tfds

from sa1b_tfds.sidecars.reading import OpenSidecar
from sa1b_tfds.sidecars.row_index import ids_of_files


class DataSource:
    """The elements of `tfds.data_source` with the columns of sidecars; see `sidecar.data_source`.

    It can be pickled. Any number of threads or processes may read it.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        sidecars: Sequence[OpenSidecar],
        split: str,
        decoders: Any,
    ):
        files = [f for f in builder.info.splits[split].file_instructions if f.take]
        ids = np.concatenate(ids_of_files(builder.data_path, files))
        kept = np.logical_and.reduce([sidecar.check(ids) for sidecar in sidecars])
        self._data = builder.as_data_source(split=split, decoders=decoders)
        self._sidecars = sidecars
        self._ids = ids[kept]
        self._numbers = np.flatnonzero(kept)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Reads element i; raises a ValueError if a row is damaged or of other data."""
        if not 0 <= i < len(self):
            raise IndexError(f"Element {i} of {len(self)}.")
        element = self._data[int(self._numbers[i])]
        for sidecar in self._sidecars:
            mask_count = len(element["annotations"]["id"])
            element |= sidecar.values(int(self._ids[i]), mask_count) or {}
        return element
