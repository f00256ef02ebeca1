"""SA-1B in count: what every step costs with its number of tars and images, and how that grows.

    python benchmarks/cardinality.py [--tars 1 10] [--images 11186] [--record]

SA-1B has 1,000 tars of 11,186 images; the default is a thousandth and a hundredth of it. The images
are 24 x 32 pixels with two masks (`tiny_tars.py`), 3 kB of tar each, so that all else than their
number is small. `--tars 1000` is all of it: 34 GB of tars, as much as half of that again for the
shards, and hours. It takes too long for `make bench`: run it by hand. `--record` writes the figures
to cardinality.json and into docs/performance.md, after each step: a run may be stopped.

Each step is a process of its own. CPU seconds are those of all its processes: on a machine that
does other things as well, only they can be compared, so the ratio is of them. Memory is the sum of
the resident sizes of its tree (pages that processes share count twice). Metadata is what the step
wrote that is neither a tar nor a shard. Growth is the factor from one size to the next: a step that
is linear has the factor of the sizes at most, as all have a part that does not grow. The ratio is
that of the step which grew most, over the factor of the sizes: above 1 it grows faster than they.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psutil
import run_all
import tiny_tars
from memory import resident

from sa1b_tfds.core.text import counted, format_bytes

FOLDER = pathlib.Path(__file__).parent
RECORD = FOLDER / "cardinality.json"
_IMAGES = 11_186
_MARKS = "<!-- cardinality: written by benchmarks/cardinality.py -->\n", "<!-- end of it -->\n"
_SHARD = re.compile(r"-train\.[a-z_]+-\d+-of-\d+\Z")

_LOAD = """
import sa1b_tfds, tensorflow_datasets as tfds
dataset = tfds.load('segment_anything', split='train', data_dir='data')
"""
_FIRST_BATCH = _LOAD + "next(iter(dataset.batch(8)))\n"
_TRAINING = """
import sa1b_tfds
config = sa1b_tfds.TrainingConfig(batch_size=8, image_size=64, mask_size=32, masks_per_image=2)
next(iter(sa1b_tfds.training_dataset('data/segment_anything/original/2.0.0', config)))
"""
_TORCH = """
from sa1b_tfds.torch import SA1BDataset
dataset = SA1BDataset('tars')
dataset[len(dataset) // 2]
"""


class Cost(NamedTuple):
    """What a step took: seconds, those of the processor, bytes of memory and written metadata."""

    seconds: float
    cpu: float
    memory: int
    metadata: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tars", type=int, nargs="+", default=[1, 10], help="sizes (%(default)s)")
    parser.add_argument("--images", type=int, default=_IMAGES, help="a tar (%(default)s)")
    parser.add_argument("--record", action="store_true", help="keep the figures in the docs")
    options = parser.parse_args()
    ratios, before = [], None
    for tars in options.tars:
        costs = {}
        for step, cost in run(tars, options.images):
            costs[step] = cost
            if options.record:
                _record(tars, options.images, costs)
        if before is not None:
            ratios.append(_print_growth(before, (tars, costs)))
        before = tars, costs
    if ratios:  # it takes two sizes
        print(f"ratio: {max(ratios):.2f}")


def run(tars: int, images: int) -> Iterator[tuple[str, Cost]]:
    """Makes tars in a temporary folder, takes all steps, prints and yields what each cost."""
    with tempfile.TemporaryDirectory(prefix="sa1b_cardinality") as name:
        folder = pathlib.Path(name)
        (folder / "tars").mkdir()
        for number in range(tars):
            _write_tar(folder, number, images)
        size = sum(path.stat().st_size for path in (folder / "tars").iterdir())
        ids = range(0, tars * images, 100)
        (folder / "ids.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
        print(f"{_title(tars, images)}, {format_bytes(size)}")
        print(_row("", "seconds", "CPU s", "memory MB", "metadata bytes"), flush=True)
        for step, command in _steps(folder, tars, images):
            cost = _watch(command, folder)
            seconds, memory = f"{cost.seconds:.1f}", f"{cost.memory / 1e6:.0f}"
            print(_row(step, seconds, f"{cost.cpu:.1f}", memory, f"{cost.metadata:,}"), flush=True)
            yield step, cost


def _title(tars: int, images: int) -> str:
    return f"{counted(tars, 'tar')} of {counted(images, 'image')}"


def _row(*cells: str) -> str:
    return "{:30}{:>10}{:>10}{:>11}{:>16}".format(*cells)


def _write_tar(folder: pathlib.Path, number: int, images: int) -> None:
    tiny_tars.write_tar(folder / "tars" / f"sa_{number:06d}.tar", number * images, images)


def _steps(
    folder: pathlib.Path, tars: int, images: int
) -> Iterator[tuple[str, Sequence[str | os.PathLike]]]:
    """Yields each step's name and command, and makes ready what it needs."""
    command = pathlib.Path(sys.executable).parent / "sa1b"
    python = (sys.executable, "-c")
    build = (command, "build", "tars", "--data-dir", "data", "--workers", "2")
    yield "verify", (command, "verify", "tars", "--workers", "2")
    yield "plan", (*build, "--plan")
    yield "build", build
    yield "build, nothing to do", build
    yield "tfds.load", (*python, _LOAD)
    yield "tfds.load, first batch", (*python, _FIRST_BATCH)
    yield "training_dataset, first batch", (*python, _TRAINING)
    yield "SA1BDataset, cold", (*python, _TORCH)
    yield "SA1BDataset, warm", (*python, _TORCH)
    yield "locate 1 of 100 ids", (command, "locate", "ids.txt", "--tars", "tars")
    _write_tar(folder, tars, images)
    yield "build --add of one tar", (*build, "--add")
    yield "stats", (command, "stats", "tars", "--workers", "2", "--json", "stats.json")


def _watch(command: Sequence[str | os.PathLike], folder: pathlib.Path) -> Cost:
    """Runs a command in the folder; looks at the memory of its tree and at what it wrote."""
    there = _metadata(folder)
    cpu_before = _cpu_of_children()
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            # As in an installed package, modules are compiled once and not by every process.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        tree = psutil.Process(process.pid)
        memory = 0
        while process.poll() is None:
            try:
                memory = max(memory, resident([tree, *tree.children(recursive=True)]))
                process.wait(0.2)
            except (subprocess.TimeoutExpired, psutil.NoSuchProcess):
                continue
        seconds = time.monotonic() - began
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{command} failed:\n{log.read().decode()[-2000:]}")
    written = _metadata(folder)
    new = (size for path, (size, time_) in written.items() if there.get(path) != (size, time_))
    return Cost(seconds, _cpu_of_children() - cpu_before, memory, sum(new))


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that ended, and of theirs
    return used.ru_utime + used.ru_stime


def _metadata(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file that is neither a tar nor a shard."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            if not (name.endswith(".tar") or _SHARD.search(name)):
                stat = os.stat(path := os.path.join(parent, name))
                found[path] = stat.st_size, stat.st_mtime_ns
    return found


def _print_growth(
    before: tuple[int, Mapping[str, Cost]], after: tuple[int, Mapping[str, Cost]]
) -> float:
    """Prints the factors from one size to the next.

    Returns:
      The greatest of those of CPU seconds, over the factor of the sizes.
    """
    factor = after[0] / before[0]
    print(f"growth from {before[0]:,} to {after[0]:,} tars, which is {factor:g} times")
    for step, cost in after[1].items():
        pairs = zip(before[1][step], cost, strict=True)
        print(_row(step, *(f"{b / a:.2f}" if a else "-" for a, b in pairs)), flush=True)
    return max(cost.cpu / before[1][step].cpu for step, cost in after[1].items()) / factor


def _record(tars: int, images: int, costs: Mapping[str, Cost]) -> None:
    record = json.loads(RECORD.read_text()) if RECORD.exists() else []
    others = [run for run in record if (run["tars"], run["images"]) != (tars, images)]
    run = {
        "tars": tars,
        "images": images,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": run_all.machine(),
        "steps": {step: cost._asdict() for step, cost in costs.items()},
    }
    record = sorted([*others, run], key=lambda run: (-run["images"], run["tars"]))
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    run_all.PAGE.write_text(with_table(run_all.PAGE.read_text(), record))


def with_table(page: str, record: Sequence[Mapping[str, Any]]) -> str:
    """The page with the table of these runs in place of the one that it had."""
    titles = [_title(run["tars"], run["images"]) for run in record]
    lines = ["", "| | " + " | ".join(titles) + " |", "|---" * (len(record) + 1) + "|"]
    for step in max((run["steps"] for run in record), key=len):
        cells = [_cell(run["steps"].get(step)) for run in record]
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    for one, other in itertools.pairwise(record):
        if one["images"] == other["images"]:
            lines += ["", _growth_in_words(one, other)]
    for where in sorted({f"Run on {run['date']}: {run['machine']}." for run in record}):
        lines += ["", where]
    lines.append("")
    return run_all.replaced(page, _MARKS, "\n".join(lines))


def _growth_in_words(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    both = one["steps"].keys() & other["steps"].keys()
    growths = {s: other["steps"][s]["cpu"] / one["steps"][s]["cpu"] for s in sorted(both)}
    most = max(growths, key=growths.__getitem__)
    return (
        f"From {one['tars']:,} to {counted(other['tars'], 'tar')} of"
        f" {counted(one['images'], 'image')}, {other['tars'] / one['tars']:g} times as many, the"
        f" step whose CPU seconds grew most is {most}: {growths[most]:.1f} times."
    )


def _cell(fields: Mapping[str, Any] | None) -> str:
    if fields is None:
        return "not run"
    cost = Cost(**fields)
    metadata = f", {format_bytes(cost.metadata)}" if cost.metadata else ""
    return f"{cost.seconds:.1f} ({cost.cpu:.1f}) s, {cost.memory / 1e6:,.0f} MB{metadata}"


if __name__ == "__main__":
    main()
