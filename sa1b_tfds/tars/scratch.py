"""A compressed tar, or one in an object store -> a plain one on a disk, for a while or to stay.

The tar is inflated once, forward, and its headers are read at the same time. A temporary file has
no name, so it is gone however the process ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from etils import epath

from sa1b_tfds.core import files, ranges
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.tars.archive import Archive, PairReader, TarArchive, index_of, read_pairs
from sa1b_tfds.tars.inflate import Inflated
from sa1b_tfds.tars.pairs import Entry, Pair

_BLOCK = 2**20


@contextlib.contextmanager
def readable_in_any_order(
    archive: Archive,
    folder: epath.PathLike,
    problems: Problems,
    on_inflated: Callable[[int], None] = lambda size: None,
) -> Iterator[tuple[PairReader, list[Entry]]]:
    """Makes the pairs of an archive readable in any order, for a `with` block.

    A tar in an object store is copied to a local file, because each read there fetches megabytes.

    Args:
      archive: a compressed tar, which is unpacked, or any other archive. On a disk that is read as
        it is.
      folder: the folder of the local file. `tempfile` chooses one if it is not a local folder.
      problems: receives single files, torn or damaged tars, and unsafe members.
      on_inflated: called after each block with the number of compressed bytes inflated so far.

    Yields:
      A reader of pairs, and the place of each pair.

    Raises:
      OSError: if the disk is full, or a file cannot be read or written.
    """
    if not (isinstance(archive, TarArchive) and needs_scratch(archive)):
        yield archive, archive.index(problems)
        return
    place = os.fspath(folder) if files.is_local(folder) else None
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        if archive.is_packed():
            entries = unpack_into(file, archive, problems, on_inflated)
        else:
            entries = _copy_into(file, archive, problems)
        yield _Unpacked(archive.name, file), entries


def needs_scratch(archive: Archive) -> bool:
    """Whether `readable_in_any_order` writes a plain tar to a local file."""
    return isinstance(archive, TarArchive) and (
        archive.is_packed() or not files.is_local(archive.path)
    )


def _copy_into(file: Any, archive: TarArchive, problems: Problems) -> list[Entry]:
    """Writes a plain tar to a local file; returns the place of each pair."""
    with ranges.opened(archive.path) as source:
        while block := source.read(_BLOCK):
            _write(file, block)
    length = file.seek(0, os.SEEK_END)
    return index_of(archive.name, file, length, problems)


def unpack_into(
    file: Any,
    archive: TarArchive,
    problems: Problems,
    on_inflated: Callable[[int], None] = lambda size: None,
) -> list[Entry]:
    """Writes the plain tar of a compressed one, up to its end or to the first damage.

    Args:
      file: an unbuffered file, to write and to read.
      archive: a compressed tar.
      problems, on_inflated: see `readable_in_any_order`.

    Returns:
      The place of each pair in the plain tar.
    """
    if archive.is_unfinished(problems):
        return []
    with ranges.opened(archive.path) as packed:
        size = packed.seek(0, os.SEEK_END)
        packed.seek(0)
        scratch = _Scratch(Inflated(packed, size), file, on_inflated)
        return index_of(archive.name, scratch, None, problems)


def _write(file: Any, block: bytes) -> None:
    """Writes all of a block to an unbuffered file, which may take a part of it."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


class _Unpacked:
    """Reads the pairs of a plain tar in an open file."""

    def __init__(self, name: str, file: BinaryIO):
        self.name = name
        self._file = file

    def read(self, entries: Iterable[Entry], problems: Problems) -> Iterator[Pair]:
        return read_pairs(self._file, entries)


class _Scratch:
    """A file that grows while it is read: it inflates the tar as far as a read or seek needs."""

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
        """Inflates up to `position` at least, or to the end if that comes first."""
        while self._there < position and (block := next(self._blocks, None)) is not None:
            _write(self._file, block)
            self._there += len(block)
            self._on_inflated(self._inflated.consumed)
