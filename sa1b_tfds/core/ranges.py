"""Bytes of a file in any storage: those of a range, or all of them forward.

In an object store each range is one request, of exactly those bytes. A file that is read forward
takes requests of `_AHEAD` bytes. fsspec's own files are not used, because s3fs reads ahead by 50 MB
whenever it opens one. epath is not used either, because it keeps a file system that a forked
process cannot use.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from etils import epath

from sa1b_tfds.core import files, gfile
from sa1b_tfds.core.positioned import Positioned

_AHEAD = 8 * 2**20  # at 100 MB/s a request takes 80 ms, so that its latency hardly counts


def read(path: epath.PathLike, start: int = 0, end: int | None = None) -> bytes:
    """Reads the bytes from `start` up to `end`, or up to the end of the file.

    There are fewer where the file ends before.

    Raises:
      OSError: if they cannot be read, naming the file.
    """
    if end is not None and start >= end:
        return b""
    if (system := files.object_store(path)) is None:
        with _opened(path, ahead=0) as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)
    with _errors_named(path):
        try:
            return system.cat_file(os.fspath(path), start=start, end=end)
        except OSError as e:
            if e.errno == errno.EINVAL or "not satisfiable" in str(e):  # the file ends before
                return b""
            raise


def opened(path: epath.PathLike, ahead: int = _AHEAD) -> BinaryIO:
    """Opens a file to read.

    Args:
      path: the file.
      ahead: the bytes that a read of an object store fetches at least. 0 fetches what is read.

    Raises:
      OSError: if it cannot be read, naming the file.
    """
    if files.object_store(path) is None:
        return _opened(path, ahead)
    # Both have all methods of a BinaryIO that are used.
    return io.BufferedReader(_Ranges(path), ahead) if ahead else _Ranges(path)  # type: ignore[return-value]


def _opened(path: epath.PathLike, ahead: int) -> BinaryIO:
    if files.is_local(path):
        return open(path, "rb")
    return gfile.opened(path) if ahead else gfile.opened(path, buffer=0)


class _Ranges(Positioned):
    """A file in an object store, of which each read is one request."""

    def __init__(self, path: epath.PathLike):
        self.name = os.fspath(path)
        with _errors_named(path):
            super().__init__(files.stat_of(path).bytes)

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        data = read(self.name, self._position, end)
        # An answer that is too short must not be taken for the end of the file.
        if len(data) < end - self._position:
            raise OSError(f"{self.name} became shorter while it was read")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextmanager
def _errors_named(path: epath.PathLike) -> Iterator[None]:
    """Raises an OSError that names the file: each storage raises its own errors, without a name."""
    name = os.fspath(path)
    try:
        yield
    except FileNotFoundError as e:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from e
    except PermissionError as e:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name) from e
    except Exception as e:
        raise OSError(f"{name} cannot be read: {e}") from e
