"""What the size of shards costs: building and reading the same tars at several sizes, in turns.

python benchmarks/shard_size.py [TARS] [--workers 2]

Reading is `as_dataset` without decoding, in file order and with files shuffled, once warm. The last
column is the number of files that all 1,000 tars of SA-1B would give. Without TARS it takes two
synthetic ones of 240 images, 180 MB each, so that the two largest sizes give the same shards.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import shutil
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import synthetic
import tensorflow_datasets as tfds

import sa1b_tfds  # registers the builder
from sa1b_tfds.tars.forms import TAR_BYTES

_SIZES_MIB = (16, 64, 256, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tars", nargs="?")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    skip = {"image": tfds.decode.SkipDecoding(), "masks": tfds.decode.SkipDecoding()}
    rows: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="sa1b_shards") as name:
        folder = pathlib.Path(name)
        templates = [] if options.tars else synthetic.templates()
        tars = options.tars or synthetic.write_tars(folder / "tars", templates, tars=2, images=240)
        for _ in range(options.rounds):
            for mib in _SIZES_MIB:
                data_dir = folder / "data"
                builder = tfds.builder(
                    "segment_anything", data_dir=data_dir, num_workers=options.workers
                )
                config = tfds.download.DownloadConfig(manual_dir=tars, max_shard_size=mib * 2**20)
                began = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):  # TFDS says where it writes
                    builder.download_and_prepare(download_config=config)
                seconds = [time.perf_counter() - began]
                for shuffle in (False, True):
                    dataset = builder.as_dataset(
                        split="train", decoders=skip, shuffle_files=shuffle
                    )
                    began = time.perf_counter()
                    images = sum(1 for _ in dataset)
                    seconds.append(time.perf_counter() - began)
                shutil.rmtree(data_dir)
                rows[mib] = [
                    min(pair) for pair in zip(seconds, rows.get(mib, seconds), strict=True)
                ]
    print(f"sa1b_tfds {sa1b_tfds.__version__}, {images} images, images/s:")
    print(f"{'MiB':>5} {'build':>7} {'in order':>9} {'shuffled':>9} {'files of SA-1B':>15}")
    for mib, seconds in rows.items():
        build, in_order, shuffled = (images / s for s in seconds)
        files = 1000 * -(-TAR_BYTES // (mib * 2**20))
        print(f"{mib:5} {build:7.0f} {in_order:9.0f} {shuffled:9.0f} {files:15}")
    print(f"ratio: {rows[min(rows)][1] / rows[max(rows)][1]:.2f}")  # largest to smallest, in order


if __name__ == "__main__":
    main()
