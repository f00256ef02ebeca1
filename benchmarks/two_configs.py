"""Builds `original` and `resized_1024` in one pass over compressed tars, beside the latter alone.

python benchmarks/two_configs.py [--images 96] [--like sa_000000.tar]

Each run is a process of its own, `sa1b build` with two workers, in memory where there is /dev/shm.
They take turns; the ratio is the median of the turns. Two builds one after the other are the third
line. The start of Python and TensorFlow, over a second in each run, is included.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import synthetic

_TURNS = 3
_BUILD = [sys.executable, "-m", "sa1b_tfds", "build", "--workers", "2"]
_ALONE = ["--config", "resized_1024"]
_RUNS = {
    "resized_1024 alone": [_ALONE],
    "both in one pass": [[*_ALONE, "--also", "original"]],
    "one after the other": [_ALONE, ["--config", "original"]],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=96, help="in each of two tars")
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    options = parser.parse_args()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="sa1b_two_configs", dir=memory) as name:
        folder = pathlib.Path(name)
        templates = synthetic.templates(options.like)
        plain = synthetic.write_tars(folder / "plain", templates, 2, options.images)
        tars = synthetic.packed(plain, folder / "tars")
        shutil.rmtree(plain)
        seconds: dict[str, list[float]] = {what: [] for what in _RUNS}
        for _ in range(_TURNS):
            for what, builds in _RUNS.items():
                seconds[what].append(_seconds(tars, folder / "data", builds))
    for what, taken in seconds.items():
        print(f"{what:20} {statistics.median(taken):5.1f} s")
    alone, both, _ = seconds.values()
    print(f"ratio: {statistics.median(b / a for a, b in zip(alone, both, strict=True)):.2f}")


def _seconds(tars: pathlib.Path, data: pathlib.Path, builds: list[list[str]]) -> float:
    began = time.perf_counter()
    for arguments in builds:
        command = [*_BUILD, str(tars), "--data-dir", str(data), *arguments]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, stdout=quiet, stderr=quiet)
    took = time.perf_counter() - began
    shutil.rmtree(data)
    return took


if __name__ == "__main__":
    main()
