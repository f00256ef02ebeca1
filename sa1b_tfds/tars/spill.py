"""Holds byte strings until they are needed: in memory up to a limit, then in a temporary file."""

from __future__ import annotations

import os
import tempfile
from typing import Any, NamedTuple

from sa1b_tfds.core import files

_PAGE = 2**16


class Stored(NamedTuple):
    """Where a byte string is: the bytes themselves, or its pages in the file and its length."""

    data: bytes | None
    pages: tuple[int, ...] = ()
    size: int = 0


class Spill:
    """Takes byte strings and gives each back once. Use it in a `with` block.

    The file has no name, so nothing is left of it however the process ends. Python's `tempfile`
    chooses its folder, which `TMPDIR` changes. Pages that were given back are used again, so the
    file is never larger than the most that was in it at one time.

    Args:
      limit: the bytes to keep in memory.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._in_memory = 0
        self._file: Any = None
        self._pages = 0
        self._free: list[int] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, data: bytes) -> Stored:
        """Keeps a byte string.

        Raises:
          DiskFull: if the disk is full, saying where and what to do.
        """
        if self._in_memory + len(data) <= self._limit:
            self._in_memory += len(data)
            return Stored(data)
        pages = tuple(self._new_page() for _ in range(0, len(data), _PAGE))
        for number, page in enumerate(pages):
            self._write(data[number * _PAGE : (number + 1) * _PAGE], page * _PAGE)
        return Stored(None, pages, len(data))

    def take(self, stored: Stored) -> bytes:
        """Gives back what `put` kept, and forgets it."""
        if stored.data is not None:
            self._in_memory -= len(stored.data)
            return stored.data
        handle = self._file.fileno()
        data = b"".join([os.pread(handle, _PAGE, page * _PAGE) for page in stored.pages])
        self._free += stored.pages
        return data[: stored.size]

    def _new_page(self) -> int:
        if self._free:
            return self._free.pop()
        self._pages += 1
        return self._pages - 1

    def _write(self, data: bytes, position: int) -> None:
        where = f"in {tempfile.gettempdir()}: set TMPDIR to a folder with more room"
        with files.full_disk_named(where):
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            while data:
                written = os.pwrite(self._file.fileno(), data, position)
                data, position = data[written:], position + written
