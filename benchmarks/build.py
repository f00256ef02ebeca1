"""Builds the same tars, compressed as Meta serves them, with the official builder and with ours.

python benchmarks/build.py [--images 400] [--like sa_000000.tar] [--skip-official]

Each run is a process of its own whose whole tree is watched: memory is the sum of the resident
sizes (pages that processes share count twice), disk is what the files in its data folder take, and
those without a name that it has open. The floor is bare inflating: one process a tar, with the
library that a build uses, which throws away what it makes. One worker and two are compared in
memory (/dev/shm, where there is one), where no disk sets the speed. Speeds on a busy machine or a
shared disk tell nothing by themselves: all take turns, each turn begins with another one, and a bar
is judged by the median of the ratios of the turns. Our runs include the start of Python and TFDS,
about a second. MB/s are of plain tar.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, NamedTuple

import bars
import psutil
import synthetic
from memory import resident
from served import served

_OURS = """
import sys
import sa1b_tfds, tensorflow_datasets as tfds
builder = tfds.builder(
    'segment_anything', data_dir=sys.argv[2], num_workers=int(sys.argv[3]), file_format=sys.argv[4])
builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[1]))
"""
_OFFICIAL = """
import sys
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.segment_anything import segment_anything_dataset_builder as sa
builder = sa.Builder(data_dir=sys.argv[2])
builder.download_and_prepare(
    download_dir=sys.argv[2] + '/downloads',
    download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[1]))
print(builder.info.splits['train'].num_examples)
"""


_INFLATE = """
import pathlib, sys
from sa1b_tfds.tars.inflate import Inflated
with open(sys.argv[1], 'rb') as file:
    for block in Inflated(file).blocks():
        pass
"""

_FLOOR, _OFFICIAL_BUILDER = "bare inflating", "official"
_TWO, _HALF = "ours, 2 workers", "ours, half the tar"
_PLAIN = "ours, of plain tars"
_ONE_IN_MEMORY, _TWO_IN_MEMORY = "ours, 1, in memory", "ours, 2, in memory"


class Run(NamedTuple):
    seconds: float
    memory: int
    disk: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=400, help="a tar (%(default)s)")
    parser.add_argument("--tars", type=int, default=2)
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    parser.add_argument("--rounds", type=int, default=3, help="of turns (%(default)s)")
    parser.add_argument("--skip-official", action="store_true")
    options = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="sa1b_build") as folder,
        tempfile.TemporaryDirectory(prefix="sa1b_build", dir=memory) as in_memory,
    ):
        _compare(pathlib.Path(folder), pathlib.Path(in_memory), options)


def _compare(folder: pathlib.Path, in_memory: pathlib.Path, options: argparse.Namespace) -> None:
    templates = synthetic.templates(options.like)
    plain = synthetic.write_tars(folder / "plain", templates, options.tars, options.images)
    tars = synthetic.packed(plain, folder / "tars")
    halves = synthetic.write_tars(folder / "half", templates, options.tars, options.images // 2)
    halves = synthetic.packed(halves, folder / "halves")
    images = options.tars * options.images
    size = sum(path.stat().st_size for path in plain.iterdir())
    packed = sum(path.stat().st_size for path in tars.iterdir())
    print(f"{options.tars} tars, {images} images, {packed / 1e6:.0f} MB, {size / 1e6:.0f} unpacked")

    inflate = f'for tar in "$0"/*.tar; do {sys.executable} -c "$2" "$tar" & done; wait'
    bare = ["sh", "-c", inflate]
    ours = [sys.executable, "-c", _OURS]
    copies = shutil.copytree(tars, in_memory / "tars")
    contestants: list[tuple[str, list[str], pathlib.Path, pathlib.Path, list[Any]]] = [
        (_FLOOR, bare, tars, folder, [_INFLATE]),
        (_TWO, ours, tars, folder, [2, "tfrecord"]),
        (_PLAIN, ours, plain, folder, [2, "tfrecord"]),
        (_HALF, ours, halves, folder, [2, "tfrecord"]),
        ("ours, array_record", ours, tars, folder, [2, "array_record"]),
        (_ONE_IN_MEMORY, ours, copies, in_memory, [1, "tfrecord"]),
        (_TWO_IN_MEMORY, ours, copies, in_memory, [2, "tfrecord"]),
    ]
    runs: dict[str, list[Run]] = {name: [] for name, *_ in contestants}
    for turn in range(options.rounds):
        first = 2 * turn % len(contestants)
        for name, command, source, target, arguments in contestants[first:] + contestants[:first]:
            runs[name].append(_watch(command, source, target, *arguments))
    if not options.skip_official:
        with served(tars) as links:
            official = _watch([sys.executable, "-c", _OFFICIAL], links, folder)
        runs[_OFFICIAL_BUILDER] = [official] * options.rounds
    print(f"{'median':24} {'images/s':>9} {'MB/s':>6} {'memory MB':>10} {'disk MB':>8}")
    for name, turns in runs.items():
        part = 0.5 if name == _HALF else 1
        seconds = statistics.median(run.seconds for run in turns)
        print(
            f"{name:24} {part * images / seconds:9.1f} {part * size / seconds / 1e6:6.0f}"
            f" {_memory(turns) / 1e6:10.0f} {max(run.disk for run in turns) / 1e6:8.0f}"
        )
    largest = max(path.stat().st_size for path in plain.iterdir())
    _judge(runs, prepared=size, scratch=2 * largest)


def _memory(turns: list[Run]) -> int:
    return max(run.memory for run in turns)


def _judge(runs: dict[str, list[Run]], prepared: int, scratch: int) -> None:
    def faster(one: str, other: str) -> float:
        pairs = zip(runs[one], runs[other], strict=True)
        return statistics.median(b.seconds / a.seconds for a, b in pairs)

    disk = max(run.disk for run in runs[_TWO])
    bars.report("GB of memory", _memory(runs[_TWO]) / 1e9, at_most=0.5)
    doubled = _memory(runs[_TWO]) / _memory(runs[_HALF])
    bars.report("memory when a tar doubles", doubled, at_most=1.15)
    bars.report("disk, of data and 2 plain tars", disk / (prepared + scratch), at_most=1.05)
    bars.report("speed, of bare inflating", faster(_TWO, _FLOOR), at_least=0.65)
    bars.report("speed, of plain tars", faster(_TWO, _PLAIN), at_least=0.3)
    ratio = faster(_TWO_IN_MEMORY, _ONE_IN_MEMORY)
    bars.report("2 workers, of 1", ratio, at_least=1.6)
    if _OFFICIAL_BUILDER in runs:
        ratio = faster(_TWO, _OFFICIAL_BUILDER)
        bars.report("speed, of the official", ratio, at_least=10)
    print(f"ratio: {ratio:.2f}")


def _watch(command: list[str], source: pathlib.Path, folder: pathlib.Path, *arguments: Any) -> Run:
    """Runs a command on a source and an empty target, and samples what its tree takes."""
    target = pathlib.Path(tempfile.mkdtemp(dir=folder))
    os.sync()  # what others left to write is not ours to pay for
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, str(source), str(target), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # As in an installed package, modules are compiled once and not by every process.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
    )
    log: list[bytes] = []
    reader = threading.Thread(target=lambda: log.append(process.stderr.read()))
    reader.start()
    tree = psutil.Process(process.pid)
    memory = disk = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [tree, *tree.children(recursive=True)]
            memory = max(memory, resident(processes))
            disk = max(disk, _on_disk(target) + _without_name(processes))
        # To look more often would take a tenth of a core from what is watched.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    seconds = time.monotonic() - began
    reader.join()
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{log[0].decode()}")
    shutil.rmtree(target)
    return Run(seconds, memory, disk)


def _on_disk(folder: pathlib.Path) -> int:
    """Bytes of all files; one with two names counts once."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(os.path.join(parent, name))
                sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def _without_name(tree: list[psutil.Process]) -> int:
    """Bytes of the files that these processes have open and that have no name any more."""
    sizes = {}
    for process in tree:
        with contextlib.suppress(OSError):
            for handle in os.listdir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{process.pid}/fd/{handle}")
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


if __name__ == "__main__":
    main()
