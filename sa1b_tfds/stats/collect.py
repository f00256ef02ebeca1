"""Reads a source into `Statistics`, many images at a time in processes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future

from etils import epath

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.core.processes import ProcessDied, Processes, worker_count
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import ArchivePart, Part, examples_of, find_parts
from sa1b_tfds.stats.findings import Findings, Problem
from sa1b_tfds.stats.statistics import Keys, Statistics, digest, statistics_of_example
from sa1b_tfds.tars.pairs import Entry

_AT_A_TIME = 200  # images of a tar, 200 MB: two seconds of work


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is.

    parts, parts_done: how many.
    images: read so far.
    images_expected: in all; extrapolated from the parts whose number of images is known.
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
      source, config: see `parts.find_parts`.
      workers: processes; default: one a core.
      on_progress: called now and then.

    Raises:
      FileNotFoundError: if there is nothing of SA-1B's kind.
      ValueError: if workers is below 1.
    """
    workers = worker_count(workers)
    parts = find_parts(source, config)
    total = Statistics()
    known = 0
    for task, statistics in _results(_tasks(parts), workers):
        total += statistics
        known += statistics.images if task.images_known is None else task.images_known
        begun = task.part_number + 1
        on_progress(
            Progress(
                parts=len(parts),
                parts_done=begun if task.is_last else task.part_number,
                images=total.images,
                images_expected=max(total.images, round(known * len(parts) / begun)),
            )
        )
    return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """Some images of a part, read by one process at a time.

    part_number: its place among all parts.
    entries: of an archive; None for all of a shard.
    start: how many images of the part lie before these.
    images_known: how many images of the source are known with this task and were not before; None
      if that is only known when it has read them.
    is_last: of its part.
    problems: what was found before, of the part as a whole.
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
        if part.archive.is_packed():  # it is read forward, by one process
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
    """Yields what comes of each task, in their order."""
    if workers == 1:
        for task in tasks:
            yield task, _read(task)
        return
    waiting: collections.deque[tuple[_Task, Future[Statistics]]] = collections.deque()
    with Processes(workers) as processes:
        for task in tasks:
            waiting.append((task, processes.submit(_read, task)))
            if len(waiting) > 2 * workers:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())


def _finished(task: _Task, future: Future[Statistics]) -> tuple[_Task, Statistics]:
    try:
        return task, future.result()
    except ProcessDied as e:
        number = task.images_known if task.entries is None else len(task.entries)
        where = f"images from {task.start} on" if task.entries is not None else ""
        what = "its images" if number is None else f"up to {number} images"
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
    """The statistics of some examples of a part.

    Args:
      part: its name.
      examples: where their reading fails, it ends.
      problems: to which they report what is no example.
      start: how many images of the part lie before these.
    """
    total = Statistics()
    ids, digests = [], []
    broken = []
    try:
        for example in examples:
            total += statistics_of_example(part, example)
            ids.append(example.image_id)
            digests.append(digest(example.image))
    except (OSError, ValueError) as e:
        broken.append(Problem(part, "", f"the rest was not read: {e}"))
    return dataclasses.replace(
        total,
        problems=Findings.of([*(_problems(problems) if problems else ()), *broken]),
        keys={(part, start): Keys.of(ids, digests)},
    )


def _problems(problems: Problems) -> tuple[Problem, ...]:
    return tuple(Problem(p.archive, p.member, p.reason) for p in problems.found)
