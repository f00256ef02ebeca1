"""MosaicML Streaming: MDS shards, written in parallel and merged."""

from __future__ import annotations

import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from loaders import BATCH, WORKERS, sample

# Its ready-made datasets, which nothing here uses, import torchvision. That fails where torchvision
# was built for CUDA and torch for the CPU.
sys.modules["streaming.vision"] = types.ModuleType("streaming.vision")

import streaming  # noqa: E402
from streaming.base.util import clean_stale_shared_memory, merge_index  # noqa: E402

_ENDLESS = 10**5  # images an epoch: its end, where the workers start anew, is not measured


def prepare(tars: pathlib.Path, folder: pathlib.Path) -> None:
    sample.of_each_tar(_write, tars, folder)
    merge_index(str(folder), keep_local=True)


def _write(tar: pathlib.Path, folder: pathlib.Path) -> None:
    columns = {"image": "bytes", "annotations": "bytes"}
    with streaming.MDSWriter(out=str(folder / tar.stem), columns=columns) as writer:
        for _, jpeg, content in sample.pairs(tar):
            writer.write({"image": jpeg, "annotations": content})


def batches(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    clean_stale_shared_memory()
    dataset = _Images(local=str(folder), shuffle=True, batch_size=BATCH, epoch_size=_ENDLESS)
    return iter(DataLoader(dataset, BATCH, num_workers=WORKERS))


class _Images(streaming.StreamingDataset):
    def __getitem__(self, i: int) -> dict[str, Any]:
        row = super().__getitem__(i)
        return sample.make(row["image"], row["annotations"])
