"""Any record of an array_record file, also in a process that forks.

Its library must not be used on both sides of a fork: it keeps a pool of decompressors, with a
thread that the child does not have, and the child crashes or hangs (array_record 0.8.6). A torch
DataLoader forks its workers whenever it is iterated, so the main process has another one read for
it; worker processes, however they were started, read by themselves.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from typing import Any

from sa1b_tfds.core.processes import ProcessDied, Processes

_OPEN_FILES = 32  # a process; each takes a file handle and about 1 MB


def read(path: str, i: int) -> bytes:
    """Record i of a file on a local disk.

    Raises:
      ValueError: if it cannot be read, with the library's reason.
    """
    if multiprocessing.parent_process() is not None:
        return _read(path, i)
    try:
        return _reading_process(os.getpid()).submit(_read, path, i).result()
    except ProcessDied as e:
        raise ValueError(str(e)) from e


def _read(path: str, i: int) -> bytes:
    try:
        [record] = _open(path).read([i])
    except (RuntimeError, IndexError, ValueError) as e:
        raise ValueError(f"it cannot be read: {e}") from e
    return record


@functools.lru_cache(_OPEN_FILES)
def _open(path: str) -> Any:
    from array_record.python import array_record_module

    # The options that the library recommends for random access.
    options = "readahead_buffer_size:0,max_parallelism:0"
    return array_record_module.ArrayRecordReader(path, options)


@functools.lru_cache(1)
def _reading_process(parent: int) -> Processes:
    """The one of the process `parent`, started when it is first needed; it ends with its parent."""
    del parent  # after a fork it is another one
    return Processes(1)
