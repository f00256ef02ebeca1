"""Hugging Face datasets: parquet, the form that the Hub stores and shows, read as a stream."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import datasets
from torch.utils.data import DataLoader

from loaders import BATCH, SHUFFLE, WORKERS, sample

_FEATURES = datasets.Features(
    {"image": datasets.Image(decode=False), "annotations": datasets.Value("binary")}
)


def prepare(tars: pathlib.Path, folder: pathlib.Path) -> None:
    sample.of_each_tar(_write, tars, folder)


def _write(tar: pathlib.Path, folder: pathlib.Path) -> None:
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        rows = datasets.Dataset.from_generator(
            _rows, features=_FEATURES, cache_dir=cache, gen_kwargs={"tar": tar}
        )
        rows.to_parquet(folder / f"{tar.stem}.parquet")


def _rows(tar: pathlib.Path) -> Iterator[dict[str, Any]]:
    for name, jpeg, content in sample.pairs(tar):
        yield {"image": {"bytes": jpeg, "path": f"{name}.jpg"}, "annotations": content}


def batches(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    files = sorted(map(str, folder.glob("*.parquet")))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    rows = rows.cast_column("image", datasets.Image(decode=False))
    made = (
        rows.repeat(None)
        .shuffle(buffer_size=SHUFFLE)
        .map(_make, remove_columns=["annotations"])
        .with_format("torch")
    )
    return iter(DataLoader(made, BATCH, num_workers=WORKERS))


def _make(row: dict[str, Any]) -> dict[str, Any]:
    return sample.make(row["image"]["bytes"], row["annotations"])
