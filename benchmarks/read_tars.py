"""Reads the same images from raw tars, plain and compressed, and from TFRecords, in turns.

python benchmarks/read_tars.py [--images 40] [--like sa_000000.tar] [--num-workers 1] [--masks 32]

Both decode the images in full and the masks to 256 x 256, on all cores. A pass is timed from its
first image on. The page cache is warm: it measures the processor's work, not the disk's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import synthetic
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=40, help="a tar (%(default)s)")
    parser.add_argument("--tars", type=int, default=4)
    parser.add_argument("--masks", type=int, default=32, help="that are decoded (%(default)s)")
    parser.add_argument("--num-workers", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sa1b_read") as folder:
        _compare(pathlib.Path(folder), options)


def _compare(folder: pathlib.Path, options: argparse.Namespace) -> None:
    templates = synthetic.templates(options.like, seeds=(1, 2))
    tars = synthetic.write_tars(folder / "tars", templates, options.tars, options.images)
    packed = synthetic.packed(tars, folder / "packed")
    decoders = {"masks": sa1b_tfds.decode_masks_to(size=(256, 256), max_masks=options.masks)}
    builder = tfds.builder("segment_anything", data_dir=folder / "data")
    config = tfds.download.DownloadConfig(manual_dir=tars)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS says where it writes
        builder.download_and_prepare(download_config=config)

    contestants = {
        "prepared TFRecords": lambda: builder.as_dataset(split="train", decoders=decoders),
        "raw tars": lambda: sa1b_tfds.read_tars(
            tars, decoders=decoders, num_workers=options.num_workers
        ),
        "raw tars, shuffled": lambda: sa1b_tfds.read_tars(
            tars, decoders=decoders, num_workers=options.num_workers, shuffle=True
        ),
        "compressed tars": lambda: sa1b_tfds.read_tars(
            packed, decoders=decoders, num_workers=options.num_workers
        ),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.rounds + 1):
        for name, make in contestants.items():
            speed = _images_per_second(make())
            if turn:  # the first one is for warming up
                speeds[name].append(speed)
    for name, measured in speeds.items():
        print(f"{name:20} {statistics.median(measured):7.1f} images/s")
    print(f"compressed, of raw: {_ratio(speeds['compressed tars'], speeds['raw tars']):.2f}")
    print(f"ratio: {_ratio(speeds['raw tars'], speeds['prepared TFRecords']):.2f}")


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _images_per_second(dataset: tf.data.Dataset) -> float:
    """Without the time to the first image, of which a long pass has no more than a short one."""
    iterator: Any = iter(dataset)
    next(iterator)
    began = time.monotonic()
    images = 0
    for example in iterator:
        images += 1
        _ = example["image"], example["masks"]
    return images / (time.monotonic() - began)


if __name__ == "__main__":
    main()
