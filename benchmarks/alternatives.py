"""Training batches of ours beside those of every loader that people use, the same work for all.

python benchmarks/alternatives.py [--only NAME ...] [--like sa_000000.tar] [--images 32]

The work: images in SA-1B's mix of shapes, letterboxed to 1024 and normalised as float32, 32 random
masks of each at 256 x 256, a point and a box a mask, batches of 4, two workers, data in the page
cache. `loaders/` has each loader as its own documentation writes it. Each runs in processes of its
own, which stand still (SIGSTOP) while others have their turn. The median of the turns counts. What
takes seconds an image has one turn.

CPU and memory are of the whole process tree: memory is what no file backs, private and shared, at
its highest. The first batch comes so long after the start of Python. Preparation begins with the
tars as Meta serves them, in two processes, imports left out; it is measured on few images, so the
start of these processes weighs more than on many. Disk is what has to stay while one trains.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import psutil
import synthetic
from loaders import LOADERS, Loader

_TARS = 2
_SAMPLED_EVERY = 0.25  # seconds; to look at memory more often would take time from what is measured


class Row(NamedTuple):
    """A line of the table, and what its columns mean."""

    speed: float  # images/s
    cpu: float  # ms an image
    memory: float  # MB
    disk: float  # MB an image
    first: float  # s
    preparation: float  # ms an image


# (heading, format, the words of a sentence about what is better, whether less is better)
_COLUMNS = (
    ("images/s", "{:,.1f}", "more images/s", False),
    ("CPU ms an image", "{:,.0f}", "less CPU time", True),
    ("memory, MB", "{:,.0f}", "less memory", True),
    ("disk, MB an image", "{:,.2f}", "less disk", True),
    ("first batch, s", "{:,.1f}", "an earlier first batch", True),
    ("preparation, ms an image", "{:,.0f}", "a shorter preparation", True),
)


class Contestant:
    """A loader in a process that waits for its turns."""

    def __init__(self, loader: Loader, name: str, data: pathlib.Path, log: pathlib.Path):
        self.memory = 0
        self.turns: list[dict[str, float]] = []
        self._log = log
        began = time.monotonic()
        self._process = _start(loader.venv, ["read", name, str(data)], log)
        self.version = self._answer()["version"]
        self.first = time.monotonic() - began
        self._signal(signal.SIGSTOP)

    def take_turn(self, seconds: float) -> None:
        self._signal(signal.SIGCONT)
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        self.turns.append(self._answer())
        self._signal(signal.SIGSTOP)

    def speeds(self) -> list[float]:
        return [turn["images"] / turn["seconds"] for turn in self.turns]

    def end(self) -> None:
        """Lets it end its workers."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """Waits for its end, and kills what is left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _look_at_memory(self) -> None:
        self.memory = max(self.memory, _memory(self._process.pid))

    def _answer(self) -> dict[str, Any]:
        while not select.select([self._process.stdout], [], [], _SAMPLED_EVERY)[0]:
            self._look_at_memory()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended:\n{_tail(self._log)}")
        return json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=LOADERS, metavar="NAME", help="these loaders")
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    parser.add_argument("--images", type=int, default=32, help="a tar (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1, help="a turn (%(default)s)")
    options = parser.parse_args()
    asked_for = [name for name in LOADERS if name in (options.only or LOADERS)]
    missing = {name: reason for name in asked_for if (reason := _missing(LOADERS[name]))}
    names = [name for name in asked_for if name not in missing]
    if len({LOADERS[name].ours for name in names}) != 2:
        parser.error(f"no loader of ours or no other one is left of {asked_for}: {missing}")
    with tempfile.TemporaryDirectory(prefix="sa1b_alternatives") as folder:
        _compare(pathlib.Path(folder), names, missing, options)


def _compare(
    folder: pathlib.Path,
    names: list[str],
    missing: dict[str, str],
    options: argparse.Namespace,
) -> None:
    templates = synthetic.templates(options.like)
    plain = synthetic.write_tars(folder / "plain tars", templates, _TARS, options.images)
    data = {"tars": synthetic.packed(plain, folder / "tars")}
    preparation = {"tars": 0.0}
    for name in names:
        loader = LOADERS[name]
        if loader.data not in data:
            preparation[loader.data] = _prepared(loader, data["tars"], folder / loader.data)
            data[loader.data] = folder / loader.data
    fast = [name for name in names if not LOADERS[name].slow]
    contestants = _take_turns(fast, data, folder, options.turns, options.seconds)
    # These take much memory.
    for name in names:
        if LOADERS[name].slow:
            contestants |= _take_turns([name], data, folder, 1, options.seconds)
    images = _TARS * options.images
    rows = {
        name: Row(
            speed=statistics.median(contestant.speeds()),
            cpu=statistics.median(t["cpu"] / t["images"] for t in contestant.turns) * 1e3,
            memory=contestant.memory / 1e6,
            disk=_size(data[LOADERS[name].data]) / images / 1e6,
            first=contestant.first,
            preparation=preparation[LOADERS[name].data] / images * 1e3,
        )
        for name, contestant in contestants.items()
    }
    versions = {name: contestant.version for name, contestant in contestants.items()}
    _print(rows, versions, missing)
    ours, best = _sides(rows)
    pairs = zip(contestants[ours].speeds(), contestants[best].speeds(), strict=False)
    print(f"ratio: {statistics.median(a / b for a, b in pairs):.2f}")


def _take_turns(
    names: list[str],
    data: dict[str, pathlib.Path],
    folder: pathlib.Path,
    turns: int,
    seconds: float,
) -> dict[str, Contestant]:
    """Starts these loaders one by one, and lets them take turns."""
    contestants: dict[str, Contestant] = {}
    try:
        for name in names:
            _say(f"{name} starts")
            log = folder / f"{name}.log"
            contestants[name] = Contestant(LOADERS[name], name, data[LOADERS[name].data], log)
        for number in range(turns):
            _say(f"turn {number + 1}")
            first = 5 * number % len(names)
            for name in names[first:] + names[:first]:
                contestants[name].take_turn(seconds)
    finally:
        for contestant in contestants.values():
            contestant.end()
        for contestant in contestants.values():
            contestant.close()
    return contestants


def _missing(loader: Loader) -> str:
    """Why a loader cannot take part, in words; empty if it can."""
    if loader.venv:
        if _python(loader.venv).exists():
            return ""
        return "not installed: `make bench` installs it in an environment of its own"
    try:
        importlib.metadata.version(loader.package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed: `pip install 'sa1b_tfds[bench]'` installs it"
    return ""


def _python(venv: str) -> pathlib.Path:
    return pathlib.Path(sys.prefix, venv, "bin", "python")


def _prepared(loader: Loader, tars: pathlib.Path, folder: pathlib.Path) -> float:
    """Seconds that it took to prepare a loader's data."""
    _say(f"{loader.data} is prepared")
    folder.mkdir()
    os.sync()  # what others left to write is not its to pay for
    log = folder.with_name(f"{folder.name}.prepare.log")
    process = _start(loader.venv, ["prepare", loader.data, str(tars), str(folder)], log)
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} failed:\n{_tail(log)}")
    return json.loads(out)["seconds"]


def _start(venv: str, arguments: list[str], log: pathlib.Path) -> subprocess.Popen:
    python = str(_python(venv)) if venv else sys.executable
    here = pathlib.Path(__file__).parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    with log.open("w") as errors:
        return subprocess.Popen(
            [python, "-m", "loaders.process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "PYTHONDONTWRITEBYTECODE": "",  # as in an installed package
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
        )


def _memory(pid: int) -> int:
    """Bytes of a process tree that no file backs; what its processes share counts once."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(OSError):
                text = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += sum(map(int, re.findall(r"Pss_(?:Anon|Shmem): +(\d+) kB", text))) * 1024
    return total


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tail(log: pathlib.Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _sides(rows: dict[str, Row]) -> tuple[str, str]:
    """The names of the two that the ratio compares: `original`, and the fastest alternative."""
    ours = "original" if "original" in rows else next(n for n in rows if LOADERS[n].ours)
    return ours, max((n for n in rows if not LOADERS[n].ours), key=lambda n: rows[n].speed)


def _print(rows: dict[str, Row], versions: dict[str, str], missing: dict[str, str]) -> None:
    """The table, in Markdown, and a sentence about each thing in which an alternative is better."""
    print("| | " + " | ".join(heading for heading, *_ in _COLUMNS) + " |")
    print("|---|" + "---|" * len(_COLUMNS))
    for name, loader in LOADERS.items():
        if name in rows:
            what = loader.what if loader.ours else f"{loader.what} ({versions[name]})"
            formats = (form for _, form, *_ in _COLUMNS)
            values = (form.format(v) for form, v in zip(formats, rows[name], strict=True))
            print(f"| {what} | " + " | ".join(values) + " |")
        elif name in missing:
            print(f"| {loader.what} | {missing[name]} |" + " |" * (len(_COLUMNS) - 1))
    print()
    ours, best = _sides(rows)
    name = LOADERS[ours].what.strip("*")
    one = rows[ours]
    for side, label in ((ours, name), (best, f"The fastest alternative, {LOADERS[best].what}")):
        row = rows[side]
        print(
            f"- {label}: {row.speed:,.1f} images/s, {row.cpu:,.0f} ms of CPU an image,"
            f" {row.memory:,.0f} MB of memory."
        )
    for i, (_, form, better, less) in enumerate(_COLUMNS):
        sign = 1 if less else -1
        winners = sorted(
            (n for n in rows if not LOADERS[n].ours and sign * rows[n][i] < sign * one[i]),
            key=lambda n: sign * rows[n][i],
        )
        winners = [n for n in winners if form.format(rows[n][i]) != form.format(one[i])]
        if winners:
            listed = ", ".join(f"{LOADERS[n].what} ({form.format(rows[n][i])})" for n in winners)
            print(f"- An alternative has {better} than {name} ({form.format(one[i])}): {listed}.")


if __name__ == "__main__":
    main()
