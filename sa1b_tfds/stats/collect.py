"""Reads the parts of a source, many at a time in processes, into `Statistics`."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from sa1b_tfds.examples import Part, find_parts
from sa1b_tfds.problems import Problems
from sa1b_tfds.stats.findings import Findings, Problem
from sa1b_tfds.stats.statistics import Keys, Statistics, digest, statistics_of_example

_SAY_EVERY_S = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is.

    parts, parts_done: how many.
    images: read so far.
    images_expected: in all; extrapolated from the parts that were begun.
    """

    parts: int
    parts_done: int
    images: int
    images_expected: int


def statistics_of(
    source: epath.PathLike,
    config: str | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Statistics:
    """Reads all parts of a source. What cannot be read is in `problems`, and the rest goes on.

    Memory: an image a worker, and 16 bytes for every image of the source.

    Args:
      source, config: see `examples.find_parts`.
      workers: parts that are read at a time, each in a process; default: one a core. With several,
        a script needs `if __name__ == '__main__'`, as multiprocessing's spawn asks for.
      on_progress: called now and then.

    Raises:
      FileNotFoundError: if there is nothing of SA-1B's kind.
      ValueError: if workers is below 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: must be at least 1.")
    parts = find_parts(source, config)
    tally = _Tally(len(parts), on_progress)
    workers = min(workers or os.cpu_count() or 1, len(parts))
    total = Statistics()
    for statistics in (
        _in_processes(parts, workers, tally.hear)
        if workers > 1
        else (statistics_of_part(part, tally.hear) for part in parts)
    ):
        total += statistics
        tally.part_is_done()
    return total


def statistics_of_part(
    part: Part, on_images: Callable[[int, bool], None] = lambda images, is_total: None
) -> Statistics:
    """Reads one part.

    Args:
      part: of `examples.find_parts`.
      on_images: hears how many images the part holds, with is_total=True, and then, now and then,
        how many more were read.
    """
    problems = Problems("skip")
    total = Statistics()
    ids: list[int] = []
    digests: list[int] = []
    broken: list[Problem] = []
    said, next_time = 0, time.monotonic() + _SAY_EVERY_S
    try:
        on_images(part.count(), True)
        for example in part.examples(problems):
            total += statistics_of_example(part.name, example)
            ids.append(example["image_id"])
            digests.append(digest(example["image"]))
            if time.monotonic() >= next_time:
                on_images(len(ids) - said, False)
                said, next_time = len(ids), time.monotonic() + _SAY_EVERY_S
    except (OSError, ValueError) as e:
        broken.append(Problem(part.name, "", f"the rest was not read: {e}"))
    on_images(len(ids) - said, False)
    found = [Problem(p.archive, p.member, p.reason) for p in problems.found]
    return dataclasses.replace(
        total,
        problems=Findings.of(found + broken),
        keys={part.name: Keys(np.array(ids, np.int64), np.array(digests, np.uint64))},
    )


class _Tally:
    """Makes `Progress` of what is heard of the parts."""

    def __init__(self, parts: int, on_progress: Callable[[Progress], None]):
        self._on_progress = on_progress
        self._parts = parts
        self._begun = self._done = self._images = self._in_begun = 0

    def hear(self, images: int, is_total: bool) -> None:
        if is_total:
            self._begun += 1
            self._in_begun += images
        else:
            self._images += images
        self._say()

    def part_is_done(self) -> None:
        self._done += 1
        self._say()

    def _say(self) -> None:
        expected = round(self._in_begun * self._parts / self._begun) if self._begun else 0
        self._on_progress(
            Progress(
                parts=self._parts,
                parts_done=self._done,
                images=self._images,
                images_expected=max(expected, self._images),
            )
        )


def _in_processes(
    parts: Sequence[Part], workers: int, on_images: Callable[[int, bool], None]
) -> Iterator[Statistics]:
    """Yields the statistics of parts as they are ready. A worker that dies fails its part only."""
    waiting = list(reversed(parts))
    running: dict[Any, _Worker] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                worker = _Worker()
                worker.begin(waiting.pop())
                running[worker.connection] = worker
            for connection in multiprocessing.connection.wait(list(running)):
                worker = running[connection]
                answer = worker.answer()
                if isinstance(answer, tuple):
                    on_images(*answer)
                    continue
                if waiting and worker.is_alive():
                    worker.begin(waiting.pop())
                else:
                    running.pop(connection).end()
                yield answer
    finally:
        for worker in running.values():
            worker.end()


class _Worker:
    """A process that reads one part after the other. It ends when the parent's pipe does."""

    def __init__(self) -> None:
        # Spawned, as forks and threads of the caller do not mix.
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._part = ""

    def begin(self, part: Part) -> None:
        self._part = part.name
        with contextlib.suppress(BrokenPipeError):  # it is dead, as `answer` will tell
            self.connection.send(part)

    def answer(self) -> Statistics | tuple[int, bool]:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            reason = f"the process that read it ended with code {self._process.exitcode}"
            none = Keys(np.zeros(0, np.int64), np.zeros(0, np.uint64))
            return Statistics(
                problems=Findings.of([Problem(self._part, "", reason)]), keys={self._part: none}
            )

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _work(connection: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        while True:
            part = connection.recv()
            connection.send(
                statistics_of_part(part, lambda images, total: connection.send((images, total)))
            )
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # nobody is left to take it
