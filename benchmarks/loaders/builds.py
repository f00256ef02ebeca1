"""The preparations that this package makes. Imports stand at the top: they are not timed."""

from __future__ import annotations

import pathlib
from typing import Any

import tensorflow_datasets as tfds

import sa1b_tfds  # noqa: F401
from loaders import WORKERS
from sa1b_tfds import export
from sa1b_tfds.download import unpack


def original(tars: pathlib.Path, folder: pathlib.Path) -> None:
    _build("original", tars, folder)


def resized(tars: pathlib.Path, folder: pathlib.Path) -> None:
    _build("resized_1024", tars, folder)


def array_record(tars: pathlib.Path, folder: pathlib.Path) -> None:
    _build("original", tars, folder, file_format="array_record")


def _build(config: str, tars: pathlib.Path, folder: pathlib.Path, **options: Any) -> None:
    name = f"segment_anything/{config}"
    builder = tfds.builder(name, data_dir=folder, num_workers=WORKERS, **options)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tars))


def plain(tars: pathlib.Path, folder: pathlib.Path) -> None:
    for tar in unpack.unpack([tars], folder, workers=WORKERS):
        if tar.status == "failed":
            raise RuntimeError(f"{tar.name}: {tar.reason}")


def webdataset(tars: pathlib.Path, folder: pathlib.Path) -> None:
    """In SA-1B's own tars the two files of an image are apart, which WebDataset does not read."""
    export.export(
        export.ExportConfig(source=tars, output=folder, format=export.WebDataset(), workers=WORKERS)
    )
