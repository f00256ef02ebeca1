"""Grain of array_record: plain records with pycocotools, and our data by tfds.data_source."""

from __future__ import annotations

import pathlib
import pickle
import random
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from loaders import BATCH, MASK, MASKS, WORKERS, sample


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
    return _stream(grain.sources.ArrayRecordDataSource(paths), _make)


def ours(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    import tensorflow_datasets as tfds

    import sa1b_tfds  # noqa: F401

    skip = tfds.decode.SkipDecoding()
    decoders = {"image": skip, "masks": skip}
    name = "segment_anything"
    source = tfds.data_source(name, split="train", data_dir=folder, decoders=decoders)
    return _stream(source, _make_of_example)


def _stream(source: Any, make: Any) -> Iterator[dict[str, Any]]:
    dataset = (
        grain.MapDataset.source(source)
        .seed(0)
        .shuffle()
        .repeat()
        .map(make)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        .batch(BATCH)
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=WORKERS))
    )
    return iter(dataset)


def _make(record: bytes) -> dict[str, np.ndarray]:
    return sample.make(*pickle.loads(record))


def _make_of_example(example: dict[str, Any]) -> dict[str, np.ndarray]:
    from sa1b_tfds.masks.rle import decode_rles

    counts, size = example["masks"]["counts"], example["masks"]["size"].tolist()
    chosen = random.sample(range(len(counts)), min(MASKS, len(counts)))
    masks = decode_rles([counts[i] for i in chosen], size, sample.fitted(size, MASK))
    annotations = example["annotations"]
    y0, x0, y1, x1 = (annotations["bbox"][chosen] * (size * 2)).T
    boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    points = annotations["point_coords"][chosen]
    return {
        "image": sample.pixels(example["image"]),
        **sample.targets(masks, boxes, points, size),  # type: ignore[arg-type]
    }
