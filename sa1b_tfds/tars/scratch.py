"""A compressed tar -> a plain one: for good, or for a while to read its pairs in any order.

It is inflated once, forward, while its headers are walked. A file that is there for a while has no
name, and is gone however the process ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.tars.archive import Archive, PairReader, TarArchive, index_of, read_pairs
from sa1b_tfds.tars.inflate import Inflated
from sa1b_tfds.tars.pairs import Entry, Pair


@contextlib.contextmanager
def readable_in_any_order(
    archive: Archive,
    folder: epath.PathLike,
    problems: Problems,
    on_inflated: Callable[[int], None] = lambda size: None,
) -> Iterator[tuple[PairReader, list[Entry]]]:
    """Gives the body what reads an archive's pairs fast in any order, and where they are.

    Args:
      archive: a compressed tar is unpacked; all else is read as it is.
      folder: for the unpacked tar; where that is no local folder, `tempfile` chooses one.
      problems: takes what is no pair, torn, damaged or unsafe.
      on_inflated: called now and then with the bytes of a compressed tar that are inflated.

    Raises:
      OSError: if the disk is full, among others.
    """
    if not (isinstance(archive, TarArchive) and archive.is_packed()):
        yield archive, archive.index(problems)
        return
    place = os.fspath(folder) if files.is_local(folder) else None
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        entries = unpack_into(file, archive, problems, on_inflated)
        yield _Unpacked(archive.name, file), entries


def unpack_into(
    file: Any,
    archive: TarArchive,
    problems: Problems,
    on_inflated: Callable[[int], None] = lambda size: None,
) -> list[Entry]:
    """Writes the plain tar that is in a compressed one; all of it, unless it is torn or damaged.

    Args:
      file: to write to and read from, without a buffer.
      archive, problems, on_inflated: see `readable_in_any_order`.

    Returns:
      Where the pairs are in it.
    """
    if archive.is_unfinished(problems):
        return []
    with archive.path.open("rb") as packed:
        size = packed.seek(0, os.SEEK_END)
        packed.seek(0)
        scratch = _Scratch(Inflated(packed, size), file, on_inflated)
        return index_of(archive.name, scratch, None, problems)


class _Unpacked:
    """The pairs of the tar in an open file."""

    def __init__(self, name: str, file: BinaryIO):
        self.name = name
        self._file = file

    def read(self, entries: Iterable[Entry], problems: Problems) -> Iterator[Pair]:
        return read_pairs(self._file, entries)


class _Scratch:
    """The tar as a file that grows: it is inflated as far as it is asked for."""

    def __init__(self, inflated: Inflated, file: Any, on_inflated: Callable[[int], None]):
        self._inflated = inflated
        self._blocks = inflated.blocks()
        self._file = file
        self._on_inflated = on_inflated
        self._there = 0
        self._position = 0

    def seek(self, position: int) -> int:
        self._inflate(position)
        self._position = min(position, self._there)
        return self._position

    def read(self, count: int) -> bytes:
        self._inflate(self._position + count)
        data = os.pread(self._file.fileno(), count, self._position)
        self._position += len(data)
        return data

    def _inflate(self, position: int) -> None:
        """Up to `position` at least, or to the end if that comes first."""
        while self._there < position and (block := next(self._blocks, None)) is not None:
            rest = memoryview(block)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._there += len(block)
            self._on_inflated(self._inflated.consumed)
