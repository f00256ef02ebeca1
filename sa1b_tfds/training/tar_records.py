"""Raw tars -> records like those of prepared data, by several processes. Imports no TensorFlow.

Up to `interleave` tars are read at a time, a few images of each in turn. A process reads a pair by
its offsets, checks it and serialises its example. The parent yields the records in an order that
depends only on the seed, not on the number of processes. A compressed tar or a link is read forward
by a thread of the parent, which sends its pairs to the processes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
from etils import epath

from sa1b_tfds.core.ahead import in_order, in_thread
from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.core.processes import Processes
from sa1b_tfds.download.links import Link
from sa1b_tfds.download.tar_stream import stream_link
from sa1b_tfds.download.transfer.answers import TransferError
from sa1b_tfds.examples import records
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import example_of, examples_of
from sa1b_tfds.sidecars.row_index import MissingRows, RowIndex
from sa1b_tfds.tars.archive import Archive, is_read_forward
from sa1b_tfds.tars.index import IndexedArchive, index_archive
from sa1b_tfds.tars.pairs import Entry, Pair

_AT_A_TIME = 4  # images of a tar in one task
_AHEAD = 8  # images of a stream that are read in advance
_SHUFFLED = 100  # images of a stream in the shuffle buffer, 100 MB

# A record, and its row in each sidecar, b"" for none; None if the image is to be left out.
Joined = tuple[bytes, tuple[bytes, ...] | None]
Sides = tuple[tuple[epath.Path, str], ...]  # the folders of sidecars, and their `missing`
Records = tuple[list[Joined], list[BadInput]]  # and what could not become one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """The order in which images are read.

    interleave: the number of tars that are read at a time.
    seed: shuffles the tars and the images of each; those of a stream in a buffer. None keeps their
      order.
    """

    interleave: int
    seed: tuple[int, ...] | None = None

    def rng(self, tar: int = -1) -> np.random.Generator | None:
        """Returns the generator for the images of one tar, or for the order of the tars."""
        return None if self.seed is None else np.random.default_rng([*self.seed, tar + 1])


def read_records(
    sources: Sequence[Archive | Link],
    order: Order,
    num_workers: int,
    problems: Problems,
    sides: Sides = (),
) -> Iterator[Joined]:
    """Yields the records of all sources, with their rows in sidecars.

    Args:
      sources: tars, extracted folders, and links to tars, which are read without storing them.
      order: see `Order`.
      num_workers: the number of processes.
      problems: receives what cannot be read.
      sides: the sidecars that have the rows.

    Raises:
      MissingRows: if an image has no row where it must have one.
    """
    rng = order.rng()
    numbers = range(len(sources)) if rng is None else rng.permutation(len(sources))
    with Processes(num_workers) as processes:
        lanes = (_open(sources[i], order.rng(i), processes, problems, sides) for i in numbers)
        ahead = 2 * num_workers
        for part, found in in_order(_in_turn(lanes, order.interleave), ahead):
            report_all(found, problems)
            yield from part


def report_all(found: Iterable[BadInput], problems: Problems) -> None:
    """Reports the problems that a process found."""
    for problem in found:
        problems.report(problem.archive, problem.member, problem.reason, type(problem))


def _in_turn(
    lanes: Iterator[Iterator[Future[Records]]], interleave: int
) -> Iterator[Future[Records]]:
    """Yields one future of each of `interleave` lanes in turn.

    When a lane ends, the next one takes its place. It is already open, so its index is there.
    """
    opened: collections.deque[Iterator[Future[Records]]] = collections.deque()
    active: collections.deque[Iterator[Future[Records]]] = collections.deque()
    while True:
        while len(active) + len(opened) <= interleave and (lane := next(lanes, None)):
            opened.append(lane)
        while len(active) < interleave and opened:
            active.append(opened.popleft())
        if not active:
            return
        lane = active.popleft()
        if (future := next(lane, None)) is not None:
            active.append(lane)
            yield future


def _open(
    source: Archive | Link,
    rng: np.random.Generator | None,
    processes: Processes,
    problems: Problems,
    sides: Sides,
) -> Iterator[Future[Records]]:
    if is_stream(source):
        pairs = in_thread(lambda: _pairs(source, problems), _AHEAD)
        return _of_stream(source.name, _in_order_of(rng, pairs), processes, sides)
    return _of_archive(processes.submit(_index, source), rng, processes, problems, sides)


def is_stream(source: Archive | Link) -> bool:
    """Whether the source is read forward only."""
    return isinstance(source, Link) or is_read_forward(source)


def _of_archive(
    indexed: Future[tuple[IndexedArchive, list[BadInput]]],
    rng: np.random.Generator | None,
    processes: Processes,
    problems: Problems,
    sides: Sides,
) -> Iterator[Future[Records]]:
    archive, found = indexed.result()
    report_all(found, problems)
    numbers = np.arange(len(archive)) if rng is None else rng.permutation(len(archive))
    for start in range(0, len(numbers), _AT_A_TIME):
        entries = [archive.index[int(i)] for i in numbers[start : start + _AT_A_TIME]]
        yield processes.submit(_read, archive.archive, entries, sides)


def _of_stream(
    name: str, pairs: Iterator[Pair], processes: Processes, sides: Sides
) -> Iterator[Future[Records]]:
    while some := list(itertools.islice(pairs, _AT_A_TIME)):
        yield processes.submit(_convert, name, some, sides)


def _pairs(source: Archive | Link, problems: Problems) -> Iterator[Pair]:
    if not isinstance(source, Link):
        with os_errors_named(source.name):
            yield from source.pairs(problems)
        return
    try:
        yield from stream_link(source, problems)
    except TransferError as e:
        reason = f"it was not read to its end: {e}"
        problems.report(source.name, "", reason, TornArchive)


def _in_order_of(rng: np.random.Generator | None, pairs: Iterator[Pair]) -> Iterator[Pair]:
    """Shuffles a stream, in a buffer of `_SHUFFLED` pairs. Without rng, keeps its order."""
    if rng is None:
        yield from pairs
        return
    buffer: list[Pair] = []
    for pair in pairs:
        if len(buffer) < _SHUFFLED:
            buffer.append(pair)
            continue
        place = int(rng.integers(_SHUFFLED))
        yield buffer[place]
        buffer[place] = pair
    for place in rng.permutation(len(buffer)):
        yield buffer[place]


# The functions below run in the worker processes.


def _index(archive: Archive) -> tuple[IndexedArchive, list[BadInput]]:
    problems = Problems("skip")
    with os_errors_named(archive.name):
        return index_archive(archive, problems), problems.found


def _read(archive: Archive, entries: list[Entry], sides: Sides) -> Records:
    problems = Problems("skip")
    examples = examples_of(archive, entries, problems)
    with os_errors_named(archive.name):
        return [_joined(example, sides) for _, example in examples], problems.found


def _convert(archive: str, pairs: list[Pair], sides: Sides) -> Records:
    problems = Problems("skip")
    examples = (example_of(archive, pair, problems) for pair in pairs)
    return [_joined(e, sides) for e in examples if e is not None], problems.found


def _joined(example: Example, sides: Sides) -> Joined:
    rows = []
    for folder, missing in sides:
        row = _row_index(folder).record(example.image_id)
        if row is None and missing == "raise":
            raise MissingRows(folder, [example.image_id])
        if row is None and missing == "skip":
            return b"", None
        rows.append(row or b"")
    return records.serialise(example), tuple(rows)


@functools.cache
def _row_index(folder: epath.Path) -> RowIndex:
    return RowIndex(folder)
