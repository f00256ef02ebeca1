"""Reads a source into `Statistics`, with several processes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future

from etils import epath

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.core.processes import ProcessDied, Processes, worker_count
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import ArchivePart, Part, examples_of, find_parts
from sa1b_tfds.stats.findings import Findings, Problem
from sa1b_tfds.stats.statistics import (
    Keys,
    Measured,
    Statistics,
    Sum,
    digest,
    measure,
    statistics_of_measured,
)
from sa1b_tfds.tars.archive import is_read_forward
from sa1b_tfds.tars.pairs import Entry

_AT_A_TIME = 200  # images per task: 200 MB, two seconds of work


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsProgress:
    """How far a run is.

    Attributes:
      parts: the number of parts.
      parts_done: how many of them are finished.
      images: the images read so far.
      images_expected: all images; estimated from the parts whose number of images is known.
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
    on_progress: Callable[[StatisticsProgress], None] = lambda progress: None,
) -> Statistics:
    """Computes the statistics of a source. What cannot be read is listed in `problems`.

    Memory holds one image per worker, and 16 bytes per image of the source; `Statistics.duplicates`
    takes as much again.

    Args:
      source, config: see `examples.find_parts`.
      workers: the number of processes. Defaults to one per core.
      on_progress: called after each task with the progress so far.

    Returns:
      The statistics of all parts.

    Raises:
      FileNotFoundError: if the source holds neither tars, nor extracted files, nor prepared data.
      ValueError: if workers is below 1.
    """
    workers = worker_count(workers)
    parts = find_parts(source, config)
    total = Sum()
    known = 0
    for task, statistics in _results(_tasks(parts), workers):
        total.add(statistics)
        known += statistics.images if task.images_known is None else task.images_known
        begun = task.part_number + 1
        on_progress(
            StatisticsProgress(
                parts=len(parts),
                parts_done=begun if task.is_last else task.part_number,
                images=total.images,
                images_expected=max(total.images, round(known * len(parts) / begun)),
            )
        )
    return total.total()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """Some images of a part, which one process reads.

    part_number: the part's place among all parts.
    entries: the images of an archive; None for all images of the part.
    start: the number of images of the part before these.
    images_known: the images of the part, in its first task; 0 in its others; None if the number is
      known only after reading.
    is_last: whether it is the last task of its part.
    problems: the problems of the part as a whole, in its first task.
    """

    part: Part
    part_number: int
    entries: Sequence[Entry] | None = None
    start: int = 0
    images_known: int | None
    is_last: bool = True
    problems: tuple[Problem, ...] = ()


def _tasks(parts: Sequence[Part]) -> Iterator[_Task]:
    for number, part in enumerate(parts):
        if not isinstance(part, ArchivePart):
            yield _Task(part=part, part_number=number, images_known=part.count())
            continue
        if is_read_forward(part.archive):  # so by one process
            yield _Task(part=part, part_number=number, images_known=None)
            continue
        problems = Problems("skip")
        entries: list[Entry] = []
        try:
            entries = part.archive.index(problems)
        except OSError as e:
            problems.report(part.name, "", str(e))
        reader = ArchivePart(part.archive.reader())
        for start in range(0, max(1, len(entries)), _AT_A_TIME):
            yield _Task(
                part=reader,
                part_number=number,
                entries=entries[start : start + _AT_A_TIME],
                start=start,
                images_known=0 if start else len(entries),
                is_last=start + _AT_A_TIME >= len(entries),
                problems=() if start else _problems(problems),
            )


def _results(tasks: Iterable[_Task], workers: int) -> Iterator[tuple[_Task, Statistics]]:
    """Yields the statistics of each task, in the order of the tasks."""
    if workers == 1:
        for task in tasks:
            yield task, _read(task)
        return
    waiting: collections.deque[tuple[_Task, Future[Statistics]]] = collections.deque()
    with Processes(workers) as processes:
        for task in tasks:
            waiting.append((task, processes.submit(_read, task)))
            if len(waiting) > 2 * workers:  # enough that no worker waits
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())


def _finished(task: _Task, future: Future[Statistics]) -> tuple[_Task, Statistics]:
    try:
        return task, future.result()
    except ProcessDied as e:
        number = task.images_known if task.entries is None else len(task.entries)
        where = f"images from {task.start} on" if task.entries is not None else ""
        what = "its images" if number is None else f"up to {counted(number, 'image')}"
        lost = Problem(task.part.name, where, f"{what} were not read: {e}")
        return task, Statistics(
            problems=Findings.of([*task.problems, lost]),
            keys={(task.part.name, task.start): Keys.of([], [])},
        )


def _read(task: _Task) -> Statistics:
    problems = Problems("skip")
    if task.entries is None or not isinstance(task.part, ArchivePart):
        examples = task.part.examples(problems)
    else:
        pairs = examples_of(task.part.archive, task.entries, problems)
        examples = (example for _, example in pairs)
    statistics = statistics_of_examples(task.part.name, examples, problems, task.start)
    before = Statistics(problems=Findings.of(task.problems))
    return before + statistics


def statistics_of_examples(
    part: str, examples: Iterable[Example], problems: Problems | None = None, start: int = 0
) -> Statistics:
    """Computes the statistics of some examples of a part.

    Args:
      part: the part's name.
      examples: what `annotations.to_example` returns. An error while reading ends them and becomes
        a problem.
      problems: the `Problems` to which `examples` reports. Defaults to none.
      start: the number of images of the part before these. Defaults to 0.

    Returns:
      Their statistics.
    """
    total = Statistics()
    measured: list[Measured] = []
    ids, digests = [], []
    broken = []
    try:
        for example in examples:
            measured.append(measure(part, example))
            if len(measured) == _AT_A_TIME:
                total += statistics_of_measured(measured)
                measured = []
            ids.append(example.image_id)
            digests.append(digest(example.image))
    except (OSError, ValueError) as e:
        broken.append(Problem(part, "", f"the rest was not read: {e}"))
    return dataclasses.replace(
        total + statistics_of_measured(measured),
        problems=Findings.of([*(_problems(problems) if problems else ()), *broken]),
        keys={(part, start): Keys.of(ids, digests)},
    )


def _problems(problems: Problems) -> tuple[Problem, ...]:
    return tuple(Problem(p.archive, p.member, p.reason) for p in problems.found)
