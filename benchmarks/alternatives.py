"""Training batches by each way that people read SA-1B, in turns, from the page cache.

    python benchmarks/alternatives.py [--only torch original ...] [--like sa_000000.tar]

`loaders.py` has the ways. Each runs in processes of its own, which stand still (SIGSTOP) while the
others have their turn. Of three turns the median counts. CPU time and memory are of all processes
of a loader; memory is their PSS, the most that was seen. Preparing is what a user does once, for
each image. The packages of the others are in the extra `bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import loaders
import psutil
import synthetic

_TARS, _IN_TAR = 2, 64
_TURNS = 3
_SECONDS = 1.2  # of a turn
_MOST = 160  # images of a turn
_BUFFERED = 16  # images that may be ready when a loader goes on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=loaders.LOADERS, default=[*loaders.LOADERS])
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    parser.add_argument("--images", type=int, default=_IN_TAR, help="in each of two tars")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        _run(*options.run)
        return
    with tempfile.TemporaryDirectory(prefix="sa1b_alternatives") as name:
        folder = pathlib.Path(name)
        templates = synthetic.templates(options.like)
        tars = synthetic.write_tars(folder / "tars", templates, _TARS, options.images)
        synthetic.packed(tars, folder / "packed")
        _compare(folder, options.only, _TARS * options.images)


def _compare(folder: pathlib.Path, names: list[str], images: int) -> None:
    lacking = {name: loaders.LOADERS[name].missing() for name in names}
    with contextlib.ExitStack() as running:
        measured = []
        for name in names:
            if not lacking[name]:
                measured.append(Measured(name, folder, images))
                running.callback(measured[-1].end)
        for _ in range(_TURNS):
            for one in measured:
                one.turn()
    header = ("images/s", "CPU ms", "first s", "MB", "MB/image", "prepare ms")
    print(f"{'':34}" + "".join(f"{title:>12}" for title in header))
    for one in measured:
        print(one.row())
    for name, packages in lacking.items():
        if packages:
            print(f"{loaders.LOADERS[name].what}: not measured, no {', '.join(packages)}")
    best = {
        ours: max(one.speed for one in measured if loaders.LOADERS[one.name].ours == ours)
        for ours in {loaders.LOADERS[one.name].ours for one in measured}
    }
    if original := [one.speed for one in measured if one.name == "original"]:
        best[True] = original[0]
    print(f"ratio: {best.get(True, 0) / best.get(False, float('nan')):.2f}")


class Measured:
    """A loader in a process of its own."""

    def __init__(self, name: str, folder: pathlib.Path, images: int):
        self.name = name
        self._loader = loaders.LOADERS[name]
        self._speeds: list[float] = []
        self._cpu: list[float] = []
        self._memory = 0.0
        made = folder / "made" / name
        made.mkdir(parents=True)
        began = time.monotonic()
        data = self._loader.prepare(folder / "tars", made)
        self._prepare = (time.monotonic() - began) / images
        copies = 4 if name == "litdata" else 1
        self._prepare /= copies
        self._bytes = _on_disk(data) / images / copies
        began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--run", name, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self._tree = psutil.Process(self._process.pid)
        self._answer()
        self._first = time.monotonic() - began
        self._images = 4
        speed = self._measured()[0]
        self._images = min(_MOST, max(4, int(speed * _SECONDS) // 4 * 4))
        self._stop()

    def _answer(self) -> None:
        if not self._process.stdout.readline():  # type: ignore[union-attr]
            raise RuntimeError(f"{self.name} ended before its batches did")

    def _measured(self) -> tuple[float, float]:
        """(images/s, CPU seconds an image) of some images."""
        print(_BUFFERED if self._speeds else 0, file=self._process.stdin, flush=True)
        self._answer()
        cpu, began = self._seconds_of_cpu(), time.monotonic()
        print(self._images, file=self._process.stdin, flush=True)
        self._answer()
        took = time.monotonic() - began
        used = self._seconds_of_cpu() - cpu
        self._memory = max(self._memory, sum(self._of_each(lambda p: p.memory_full_info().pss)))
        return self._images / took, used / self._images

    def turn(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)
        speed, cpu = self._measured()
        self._speeds.append(speed)
        self._cpu.append(cpu)
        self._stop()

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _of_each(self, ask: Any) -> list[float]:
        found = []
        for process in [self._tree, *self._tree.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found.append(ask(process))
        return found

    def _seconds_of_cpu(self) -> float:
        return sum(self._of_each(lambda p: sum(p.cpu_times()[:2])))

    @property
    def speed(self) -> float:
        return statistics.median(self._speeds)

    def row(self) -> str:
        figures = (
            f"{self.speed:.1f}",
            f"{1e3 * statistics.median(self._cpu):.1f}",
            f"{self._first:.1f}",
            f"{self._memory / 1e6:,.0f}",
            f"{self._bytes / 1e6:.2f}",
            f"{1e3 * self._prepare:.1f}",
        )
        mark = "*" if self._loader.ours else " "
        return f"{mark} {self._loader.what:32}" + "".join(f"{figure:>12}" for figure in figures)


def _on_disk(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _run(name: str, data: str) -> None:
    """Makes as many images as each line of standard input asks for, and answers each with one."""
    batches = loaders.LOADERS[name].batches(pathlib.Path(data))
    answers, sys.stdout = sys.stdout, sys.stderr
    next(batches)
    print(json.dumps("first"), file=answers, flush=True)
    for line in sys.stdin:
        for _ in range(-(-int(line) // loaders.BATCH)):
            next(batches)
        print(json.dumps("done"), file=answers, flush=True)


if __name__ == "__main__":
    main()
