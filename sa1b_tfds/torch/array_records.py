"""Any record of an array_record file, also in processes that fork after reading or before.

Its library must not be used on both sides of a fork: it keeps a pool of decompressors, with a
thread that the child does not have, and crashes there or hangs (array_record 0.8.6). Since a
DataLoader may fork its workers from the main process at any time, the main process leaves reading
to a child that this file is the program of; workers, however they were started, read themselves.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import struct
import subprocess
import sys
import threading
from typing import Any, BinaryIO, cast

_OPEN_FILES = 32  # a process; each takes a file handle and about 1 MB
_LENGTH = struct.Struct("<q")
_RUN = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"


def read(path: str, i: int) -> bytes:
    """Record i of a file.

    Raises:
      ValueError: if it cannot be read, with the library's reason.
    """
    if multiprocessing.parent_process() is None:
        return _child(os.getpid()).read(path, i)
    return _read(path, i)


def _read(path: str, i: int) -> bytes:
    try:
        [record] = _reader(path).read([i])
    except (RuntimeError, IndexError, ValueError) as e:
        raise ValueError(f"it cannot be read: {e}") from e
    return record


@functools.lru_cache(_OPEN_FILES)
def _reader(path: str) -> Any:
    from array_record.python import array_record_module

    # The options that the library recommends for random access.
    options = "readahead_buffer_size:0,max_parallelism:0"
    return array_record_module.ArrayRecordReader(path, options)


class _Child:
    """A process that reads for this one; it ends when this one does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        child = subprocess.Popen(
            [sys.executable, "-c", _RUN, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for this process to handle
        )
        self._process = child
        self._requests, self._answers = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)

    def read(self, path: str, i: int) -> bytes:
        try:
            with self._lock:
                _send(self._requests, i, os.fsencode(path))
                failed, answer = _receive(self._answers)
        except (EOFError, BrokenPipeError) as e:
            _child.cache_clear()  # the next one who asks starts another
            raise ValueError("the process that reads array_record files has ended") from e
        if failed:
            raise ValueError(answer.decode())
        return answer


@functools.lru_cache(1)
def _child(process: int) -> _Child:
    """The one of this process: after a fork another one."""
    return _Child()


def _send(file: BinaryIO, number: int, content: bytes) -> None:
    file.write(_LENGTH.pack(number) + _LENGTH.pack(len(content)))
    file.write(content)
    file.flush()


def _receive(file: BinaryIO) -> tuple[int, bytes]:
    """Raises an EOFError if the other side has ended."""
    head = file.read(2 * _LENGTH.size)
    if len(head) < 2 * _LENGTH.size:
        raise EOFError
    number, length = struct.unpack("<2q", head)
    if len(content := file.read(length)) < length:
        raise EOFError
    return number, content


def _serve() -> None:
    while True:
        try:
            i, path = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            _send(sys.stdout.buffer, 0, _read(os.fsdecode(path), i))
        except ValueError as e:
            _send(sys.stdout.buffer, 1, str(e).encode())


if __name__ == "__main__":
    _serve()
