"""Reading embeddings of 2 MB with the images, beside images alone and beside loose .npy files.

    python benchmarks/sidecar.py [--images 192]

Float16 [64, 64, 256] for each image, which is what SAM's image encoder gives:
  writing: `sidecar.map` with a function that returns the same array, beside `cp` of the shards that
    it wrote, both until the bytes are on the disk; and beside one core that copies them in memory;
  reading: `training_dataset` at 1024 x 1024, from the page cache: images alone, with the sidecar,
    and with a .npy file for each image that a numpy_function loads, as people do it;
  importing: rows of 250,000 and of a million captions, and the memory that takes above an import of
    a few rows.

Rounds are in turns, and the medians count. The last ratio is images/s with the sidecar, to those of
images alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

import bars
import numpy as np
import synthetic
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds import sidecar

_SHAPE = (64, 64, 256)
_NAME = "segment_anything"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--captions", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.captions:
        _import(options.folder, options.captions)
        return
    with tempfile.TemporaryDirectory(prefix="sa1b_sidecar") as name:
        folder = pathlib.Path(name)
        tars = synthetic.write_tars(folder / "tars", synthetic.templates(), 2, options.images // 2)
        builder = tfds.builder(_NAME, data_dir=folder)
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=str(tars))
            )
        shutil.rmtree(tars)
        data = pathlib.Path(builder.data_path)
        _write(data, folder, options.images, options.rounds)
        ratio = _read(data, folder, options.images, options.rounds)
        few, many = (_memory_of_import(folder, number) for number in (250_000, 1_000_000))
        bars.report("memory when the rows are four times as many", many / few, at_most=2)
    print(f"ratio: {ratio:.2f}")


def _write(data: pathlib.Path, folder: pathlib.Path, images: int, rounds: int) -> None:
    embeddings = np.random.default_rng(0).random((8, *_SHAPE), np.float32).astype(np.float16)
    features = {"embedding": tfds.features.Tensor(shape=_SHAPE, dtype=np.float16)}
    out = folder / "teacher"

    def ours() -> None:
        # What is read of an image is its id: the function has nothing to do.
        sidecar.map(
            data,
            lambda batch: embeddings[: len(batch)],
            features,
            out,
            prepare=lambda example: example.image_id,
        )

    def copied() -> None:
        for path in out.glob("1.0.0/*.tfrecord-*"):
            subprocess.run(["cp", path, folder / "copy"], check=True)
            subprocess.run(["sync", folder / "copy"], check=True)

    def in_memory() -> None:
        for _ in range(images // len(embeddings)):
            embeddings.tobytes()

    took: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        shutil.rmtree(out, ignore_errors=True)
        for work in (ours, copied, in_memory):
            began = time.perf_counter()
            work()
            if number:  # the first is to warm up
                took.setdefault(work.__name__, []).append(time.perf_counter() - began)
        (folder / "copy").unlink()
    size = sum(path.stat().st_size for path in out.glob("1.0.0/*.tfrecord-*")) / 1e6
    speed = {name: size / statistics.median(of) for name, of in took.items()}
    print(f"writing {size:,.0f} MB: sidecar.map {speed['ours']:,.0f} MB/s,", end=" ")
    print(f"cp {speed['copied']:,.0f} MB/s, one core in memory {speed['in_memory']:,.0f} MB/s")
    bars.report("writing / cp", speed["ours"] / speed["copied"], at_least=0.6)
    loose = folder / "loose"
    loose.mkdir()
    for image_id in range(images):
        np.save(loose / f"{image_id}.npy", embeddings[image_id % len(embeddings)])


def _batches(data: pathlib.Path, sidecars: Any) -> tf.data.Dataset:
    config = sa1b_tfds.TrainingConfig(masks_per_image=0, shuffle=16, repeat=True)
    return sa1b_tfds.training_dataset(data, config, sidecars=sidecars)


def _loose(data: pathlib.Path, folder: pathlib.Path) -> tf.data.Dataset:
    def load(image_ids: np.ndarray) -> np.ndarray:
        return np.stack([np.load(folder / f"{image_id}.npy") for image_id in image_ids])

    def add(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**batch, "teacher": tf.numpy_function(load, [batch["image_id"]], tf.float16)}

    return _batches(data, None).map(add, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _read(data: pathlib.Path, folder: pathlib.Path, images: int, rounds: int) -> float:
    contestants = {
        "images alone": lambda: _batches(data, None),
        "with the sidecar": lambda: _batches(data, {"teacher": folder / "teacher"}),
        "with loose .npy files": lambda: _loose(data, folder / "loose"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, make in contestants.items():
            batches = _images(make())
            next(batches)
            began, count = time.perf_counter(), 0
            while count < images:
                count += next(batches)
            if number:  # the first is to warm up
                speeds[name].append(count / (time.perf_counter() - began))
            batches.close()
    speed = {name: statistics.median(of) for name, of in speeds.items()}
    for name, value in speed.items():
        print(f"reading {name:22} {value:7.1f} images/s", flush=True)
    ratio = speed["with the sidecar"] / speed["images alone"]
    bars.report("with the sidecar / images alone", ratio, at_least=0.85)
    loose = speed["with the sidecar"] / speed["with loose .npy files"]
    bars.report("sidecar / loose files", loose, at_least=1)
    return ratio


def _images(dataset: tf.data.Dataset) -> Iterator[int]:
    for batch in dataset:
        yield len(batch["image_id"])


def _memory_of_import(folder: pathlib.Path, number: int) -> float:
    """Imports captions in a process of its own; returns the MB that it took for them."""
    command = [sys.executable, __file__, "--captions", str(number), "--folder", str(folder)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed, end="", flush=True)
    return float(re.findall(r"([\d.]+) MB", printed)[-1])


def _import(folder: pathlib.Path, number: int) -> None:
    data = next(folder.glob(f"{_NAME}/original/*/dataset_info.json")).parent
    sidecar.import_file(_captions(folder, 1000), data, folder / f"few_of_{number}")
    before = _peak_memory()
    path = _captions(folder, number)
    began = time.perf_counter()
    sidecar.import_file(path, data, folder / f"captions_{number}")
    seconds = time.perf_counter() - began
    print(f"importing {number:,} captions: {seconds:.1f} s, {_peak_memory() - before:.1f} MB more")


def _captions(folder: pathlib.Path, number: int) -> pathlib.Path:
    path = folder / f"{number}.jsonl"
    with path.open("w") as file:
        for place in range(number):
            image_id = place * 7919 % number  # in an order that is not the data's
            row = {"image_id": image_id, "caption": f"caption of image {image_id} " * 8}
            file.write(json.dumps(row) + "\n")
    return path


def _peak_memory() -> float:
    """The most MB of this process so far."""
    # Not `getrusage`, which has the most that the parent had when it forked as well.
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    return int(peak) / 1024


if __name__ == "__main__":
    main()
