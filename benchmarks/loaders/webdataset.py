"""WebDataset, of the tars that `sa1b repack` writes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import webdataset as wds

from loaders import BATCH, SHUFFLE, WORKERS, sample


def batches(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    shards = sorted(map(str, folder.glob("*.tar")))
    dataset = (
        wds.WebDataset(shards, resampled=True, shardshuffle=True)
        .shuffle(SHUFFLE)
        .to_tuple("jpg", "json")
        .map_tuple(bytes, bytes)
        .map(lambda files: sample.make(*files))
        .batched(BATCH)
    )
    return iter(wds.WebLoader(dataset, batch_size=None, num_workers=WORKERS))
