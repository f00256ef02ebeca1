"""The training input path beside bare JPEG decoding and beside what people do today.

    python benchmarks/input_pipeline.py [--like sa_000000.tar]

Images in SA-1B's mix of shapes with 100 masks, from prepared data in the page cache:
  (a) the floor: tf.data reads the records and decodes the JPEGs, nothing more;
  (b) `training_dataset`: 1024 letterbox, float32, normalised, 32 masks at 256 x 256, a point and a
      box a mask, batches of 4;
  (c) the same with random scale-and-crop and flip;
  (d) the official builder's layout by tf.data, with pycocotools in a numpy_function: the image
      resized to 1024, 32 masks to 256 x 256;
  (e) as erow's loader has it: Pillow and pycocotools in Python, every mask at full size.

All run on all cores, in turns, in one process; the median of the rounds counts, of which d and e,
slow and steady, have one. Twice: with TensorFlow's own way to get memory, and with
TF_CPU_ALLOCATOR_USE_BFC=true, which sa1b_tfds sets: TensorFlow then keeps the memory of a batch
(50 MB, as float32) for the next one, instead of asking the kernel for fresh pages. The last ratio
is of this.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from typing import Any

import bars
import numpy as np
import synthetic
from PIL import Image

_IMAGES = 48
Start = Callable[[], Generator[int, None, None]]
_ALLOCATOR = "TF_CPU_ALLOCATOR_USE_BFC"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--prepared", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepared:
        _measure(options.prepared, options.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="sa1b_input") as name:
        folder = pathlib.Path(name)
        _prepare(folder, synthetic.templates(options.like))
        for kept in ("false", "true"):
            print(f"{_ALLOCATOR}={kept}", flush=True)
            command = [sys.executable, __file__, "--prepared", folder, "--rounds", options.rounds]
            subprocess.run(
                [*map(str, command)],
                check=True,
                env={**os.environ, _ALLOCATOR: kept, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )


def _prepare(folder: pathlib.Path, templates: list[synthetic.Template]) -> None:
    import tensorflow_datasets as tfds

    import sa1b_tfds  # noqa: F401

    tars = synthetic.write_tars(folder / "tars", templates, 2, _IMAGES // 2)
    builder = tfds.builder("segment_anything", data_dir=folder)
    config = tfds.download.DownloadConfig(manual_dir=str(tars))
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)


def _measure(folder: pathlib.Path, rounds: int) -> None:
    contestants = {
        "a": _floor(folder),
        "b": _ours(folder),
        "c": _ours(folder, scale_range=(0.5, 2.0), flip=0.5),
        "d": _with_numpy_function(folder),
        "e": lambda: _in_python(folder),
    }
    # Images a round: a few seconds each.
    images = {"a": 96, "b": 96, "c": 96, "d": 16, "e": 4}
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, start in contestants.items():
            if number > 1 and name in "de":
                continue  # slow, and steady
            # Anew each time, so that nothing is made in advance while others are measured.
            stream = start()
            next(stream)
            began, count = time.perf_counter(), 0
            while count < images[name]:
                count += next(stream)
            if number:  # the first is to warm up
                speeds[name].append(count / (time.perf_counter() - began))
            stream.close()
    speed = {name: statistics.median(of) for name, of in speeds.items()}
    labels = {
        "a": "JPEG decoding alone",
        "b": "training_dataset",
        "c": "... with crops and flips",
        "d": "official layout, numpy_function",
        "e": "Pillow and pycocotools, full size",
    }
    for name, label in labels.items():
        print(f"({name}) {label:34} {speed[name]:7.1f} images/s", flush=True)
    memory = (
        ", memory kept" if os.environ.get(_ALLOCATOR) == "true" else ", TensorFlow's own memory"
    )
    for one, other, bar in (("b", "a", 0.7), ("c", "a", 0.58), ("b", "d", 8), ("b", "e", 20)):
        name = f"{labels[one]} / {labels[other]}{memory}"
        bars.report(name, speed[one] / speed[other], at_least=bar)
    print(f"ratio: {speed['b'] / speed['a']:.2f}", flush=True)


def _counted(dataset: Any, images: int) -> Start:
    """Starts an iteration of `images` an element."""

    def start() -> Generator[int, None, None]:
        for _ in dataset:
            yield images

    return start


def _floor(folder: pathlib.Path) -> Start:
    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string)}
    dataset = _records(folder).map(
        lambda record: tf.io.decode_jpeg(tf.io.parse_single_example(record, features)["image"], 3),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return _counted(dataset.repeat().prefetch(tf.data.AUTOTUNE), 1)


def _ours(folder: pathlib.Path, **augmentation: Any) -> Start:
    import sa1b_tfds

    config = sa1b_tfds.TrainingConfig(batch_size=4, repeat=True, shuffle=16, **augmentation)
    return _counted(sa1b_tfds.training_dataset("segment_anything", config, data_dir=folder), 4)


def _with_numpy_function(folder: pathlib.Path) -> Start:
    import tensorflow as tf
    from pycocotools import mask as coco_mask

    def masks_of(counts: np.ndarray, size: np.ndarray) -> np.ndarray:
        masks = [coco_mask.decode({"size": size.tolist(), "counts": c}) for c in counts]
        nearest = Image.Resampling.NEAREST
        return np.stack([np.array(Image.fromarray(m).resize((256, 256), nearest)) for m in masks])

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "masks/counts": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
            "masks/size": tf.io.FixedLenFeature([2], tf.int64),
        }
        values = tf.io.parse_single_example(record, features)
        image = tf.image.resize_with_pad(tf.io.decode_jpeg(values["image"], 3), 1024, 1024)
        arguments = [values["masks/counts"][:32], values["masks/size"]]
        return image, tf.numpy_function(masks_of, arguments, tf.uint8)

    dataset = _records(folder).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return _counted(dataset.repeat().batch(4).prefetch(tf.data.AUTOTUNE), 4)


def _in_python(folder: pathlib.Path) -> Generator[int, None, None]:
    """One process: the loader's users start several, which here would share the same two cores."""
    from pycocotools import mask as coco_mask

    from sa1b_tfds.examples import parts as examples

    while True:
        for example in examples.read_examples(folder, config="original"):
            image = np.array(Image.open(io.BytesIO(example.image)))
            counts, size = example.masks
            masks = np.stack(
                [coco_mask.decode({"size": list(size), "counts": c}) for c in counts]
            ).astype(np.float32)
            yield int(len(masks) > 0 and image.size > 0)


def _records(folder: pathlib.Path) -> Any:
    import tensorflow as tf

    return tf.data.TFRecordDataset(sorted(map(str, folder.glob("**/*.tfrecord-*"))))


if __name__ == "__main__":
    main()
