"""The two forms of a tar: compressed with gzip, as Meta serves it, or plain.

Both are named `.tar`, so the first bytes decide, never the name. A compressed tar is read forward
here; `seek.py` reads it in any order, and `scratch.py` unpacks it.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from etils import epath

from sa1b_tfds.core import files, ranges
from sa1b_tfds.tars.inflate import MAGIC, Inflated, Readable
from sa1b_tfds.tars.members import ForwardFile

# The bytes of a tar as Meta serves it (the mean of 51 tars), and the factor to its unpacked size
# (a little over what users report).
TAR_BYTES = 11_300_000_000
_UNPACKED = 1.06
_READ = 256 * 2**10


def is_packed(path: epath.PathLike) -> bool:
    """Whether a tar is compressed with gzip.

    Raises:
      FileNotFoundError: if it is not there.
    """
    if files.is_local(path):
        return _is_packed(path)
    return _is_packed_in_store(path, files.stat_of(path))


def _is_packed(path: epath.PathLike) -> bool:
    return ranges.read(path, 0, len(MAGIC)) == MAGIC


@functools.lru_cache(maxsize=2048)  # a build asks several times for each of up to 1,000 tars
def _is_packed_in_store(path: epath.PathLike, as_it_is: files.Stat) -> bool:
    del as_it_is  # a tar that has changed is looked at again
    return _is_packed(path)


def unpacked_bytes(size: int) -> int:
    """Estimates the unpacked size of a compressed tar of `size` bytes, rather too large."""
    return int(size * _UNPACKED)


@contextlib.contextmanager
def opened_forward(
    path: epath.PathLike, on_inflated: Callable[[int], None] = lambda size: None
) -> Iterator[tuple[ForwardFile, int | None]]:
    """Opens a tar in either form.

    Args:
      path: the tar.
      on_inflated: called after each block with the number of compressed bytes inflated so far.

    Yields:
      The plain tar at its start, and its length in bytes; None for a compressed tar, whose length
      is known only at its end.
    """
    with ranges.opened(path) as file:
        # First: what was read ahead is lost when the end is sought.
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        is_gzip = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if is_gzip:
            yield Inflating(Inflated(file, size), on_inflated), None
        else:
            yield file, size


def forward(file: Readable, size: int | None) -> tuple[ForwardFile, int | None]:
    """Does what `opened_forward` does for an open stream, which cannot seek."""
    beginning = file.read(_READ)
    if beginning.startswith(MAGIC):
        return Inflating(Inflated(file, size, beginning)), None
    rest = iter(lambda: file.read(_READ), b"")
    return ForwardBlocks(itertools.chain([beginning], rest)), size


class Forward(abc.ABC):
    """A file that only moves forward: each byte is read once."""

    _position = 0

    @abc.abstractmethod
    def _take(self, count: int) -> bytes:
        """Returns the next bytes that are there, at most `count`; b"" at the end."""

    def read(self, count: int) -> bytes:
        """Returns the next `count` bytes; fewer at the end."""
        parts = []
        while count and (part := self._next(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def seek(self, position: int) -> int:
        """Skips to `position`, or to the end if that comes first; returns the new position."""
        if position < self._position:
            raise ValueError(f"byte {position} was read already, and this is read forward only")
        while self._position < position and self._next(position - self._position):
            pass
        return self._position

    def _next(self, count: int) -> bytes:
        part = self._take(count)
        self._position += len(part)
        return part


class ForwardBlocks(Forward):
    """A file over blocks of bytes, which only moves forward."""

    def __init__(self, blocks: Iterable[bytes]):
        self._blocks = iter(blocks)
        self._block = b""
        self._start = 0  # of the part of the block that is left

    def _take(self, count: int) -> bytes:
        while self._start == len(self._block):
            if (block := next(self._blocks, None)) is None:
                return b""
            self._block, self._start = block, 0
        part = self._block[self._start : self._start + count]
        self._start += len(part)
        return part


class Inflating(ForwardBlocks):
    """The content of a compressed file, as a file that only moves forward."""

    def __init__(self, inflated: Inflated, on_inflated: Callable[[int], None] = lambda size: None):
        super().__init__(self._told(inflated.blocks()))
        self._inflated = inflated
        self._on_inflated = on_inflated

    @property
    def packed_end(self) -> int:
        """Where the compressed data ends in the file; valid once all of it was read."""
        return self._inflated.end

    def _told(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self._on_inflated(self._inflated.consumed)
            yield block
