"""Grain of array_record, with pycocotools."""

from __future__ import annotations

import pathlib
import pickle
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from loaders import BATCH, WORKERS, sample


def prepare(tars: pathlib.Path, folder: pathlib.Path) -> None:
    sample.of_each_tar(_write, tars, folder)


def _write(tar: pathlib.Path, folder: pathlib.Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    # group_size 1 is what Grain's documentation asks for where records are read in any order.
    writer = ArrayRecordWriter(str(folder / f"{tar.stem}.array_record"), "group_size:1")
    for _, *pair in sample.pairs(tar):
        writer.write(pickle.dumps(pair))
    writer.close()


def batches(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    paths = sorted(map(str, folder.glob("*.array_record")))
    dataset = (
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths))
        .seed(0)
        .shuffle()
        .repeat()
        .map(_make)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        .batch(BATCH)
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=WORKERS))
    )
    return iter(dataset)


def _make(record: bytes) -> dict[str, np.ndarray]:
    return sample.make(*pickle.loads(record))
