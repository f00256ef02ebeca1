"""LitData: chunks that `optimize` writes, read by a StreamingDataLoader."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import litdata

from loaders import BATCH, WORKERS, sample


def prepare(tars: pathlib.Path, folder: pathlib.Path) -> None:
    litdata.optimize(
        fn=_rows,
        inputs=sorted(map(str, tars.glob("*.tar"))),
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=WORKERS,
        start_method="fork",
        verbose=False,
    )


def _rows(tar: str) -> Iterator[dict[str, bytes]]:
    for _, jpeg, content in sample.pairs(pathlib.Path(tar)):
        yield {"image": jpeg, "annotations": content}


def batches(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    # A parallel dataset is how LitData repeats one without a new start of the workers.
    dataset = litdata.ParallelStreamingDataset(
        [litdata.StreamingDataset(str(folder), shuffle=True)],
        length=float("inf"),
        transform=_make,
    )
    return iter(litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=WORKERS))


def _make(rows: tuple[dict[str, bytes]]) -> dict[str, Any]:
    return sample.make(rows[0]["image"], rows[0]["annotations"])
