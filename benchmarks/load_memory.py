"""Peak memory of `for example in tfds.load('segment_anything', split='train')`, 48 images.

python benchmarks/load_memory.py [--images 48] [--like sa_000000.tar]

The images are in two shards; "16 shards" reads as many of a dataset of 512 images, whose shards
TFDS would read ahead. Each variant of the loop runs in a process of its own. "beyond TensorFlow" is
what it took more than after the first op. The ratio is that of the loop as it is, over the masks of
the largest example: how many such examples it holds at most. TFDS's own defaults give over 40.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import synthetic
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds

VARIANTS = (
    "as it is",
    "16 shards",
    "a ReadConfig",
    "an explicit version",
    "as_supervised",
    "decode_masks_to",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=48, help="(%(default)s)")
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    parser.add_argument(
        "--run", nargs=3, metavar=("VARIANT", "DATA", "IMAGES"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.run:
        variant, data, images = options.run
        _run(variant, data, int(images))
        return
    with tempfile.TemporaryDirectory(prefix="sa1b_memory") as name:
        folder, templates = pathlib.Path(name), synthetic.templates(options.like)
        data = _prepared(folder / "two", templates, 2, options.images // 2)
        many = _prepared(folder / "many", templates, 16, 32)
        ratios = [
            _measured(variant, many if variant == "16 shards" else data, options.images)
            for variant in VARIANTS
        ]
    print(f"ratio: {ratios[0]:.2f}")


def _prepared(
    folder: pathlib.Path, templates: list[synthetic.Template], tars: int, images: int
) -> pathlib.Path:
    folder.mkdir()
    manual_dir = synthetic.write_tars(folder / "tars", templates, tars, images)
    builder = tfds.builder("segment_anything", data_dir=folder / "data")
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS says where it writes
        builder.download_and_prepare(download_config=config)
    shutil.rmtree(manual_dir)
    return folder / "data"


def _measured(variant: str, data: pathlib.Path, images: int) -> float:
    """Prints a line; returns the peak beyond TensorFlow, in the largest example's masks."""
    command = [sys.executable, __file__, "--run", variant, str(data), str(images)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, peak, largest, seconds = map(float, printed.split())
    print(
        f"{variant:20} peak {peak:5.2f} GB, {peak - before:5.2f} beyond TensorFlow;"
        f" masks of an image {largest:.3f} GB at most; {images / seconds:.1f} images/s",
        flush=True,
    )
    return (peak - before) / largest


def _run(variant: str, data: str, images: int) -> None:
    name = "segment_anything"
    kwargs: dict[str, Any] = {}
    if variant == "a ReadConfig":
        kwargs["read_config"] = tfds.ReadConfig(shuffle_seed=1)
    elif variant == "an explicit version":
        name = "segment_anything/original:2.0.0"
    elif variant == "as_supervised":
        kwargs["as_supervised"] = True
    elif variant == "decode_masks_to":
        kwargs["decoders"] = {"masks": sa1b_tfds.decode_masks_to(size=(256, 256))}
    tf.zeros(1)
    before = _peak()
    largest = 0
    start = time.perf_counter()
    for example in tfds.load(name, split="train", data_dir=data, **kwargs).take(images):
        masks = example[1] if variant == "as_supervised" else example["masks"]
        largest = max(largest, masks.shape.num_elements())
    print(before, _peak(), largest / 1e9, time.perf_counter() - start)


def _peak() -> float:
    """The most memory that this process had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
