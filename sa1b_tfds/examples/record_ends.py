"""Where each record of a TFRecord shard ends, so that any of them is read at once.

TFRecord has no table of contents. So a build writes the file `record_ends` beside the shards: 8
bytes for each record of all shards, in their order. Data of an earlier version does not have it.
Then the headers in a shard are read. In an object store that fetches the whole shard, so what was
found is kept on the local disk (`tars/kept.py`).

Nothing relies on the list: each record has checksums. If one is wrong, the headers are read.
"""

from __future__ import annotations

import zlib
from contextlib import suppress

import numpy as np
from etils import epath

from sa1b_tfds.core import files, ranges
from sa1b_tfds.examples import record_files
from sa1b_tfds.tars import kept

NAME = "record_ends"
DTYPE = np.dtype("<i8")

_MAGIC = b"sa1b_tfds record ends 1\n"

_known: dict[tuple[epath.Path, range, files.Stat | None], np.ndarray] = {}


def read_record(path: epath.Path, numbers: range, i: int) -> bytes:
    """Reads record i of a shard. Of an object store it fetches no other bytes.

    Where the records end is found when the shard is first read, and stays in memory: 8 bytes each.

    Args:
      path: the shard.
      numbers: those of its records among the records of all shards.
      i: from 0 to len(numbers) - 1.

    Raises:
      IndexError: if the shard has no such record.
      ValueError: if the record is cut off or a checksum is wrong.
      OSError: if it cannot be read.
    """
    # A local shard that has changed is looked through again. Of a store this would be a request.
    key = (path, numbers, files.stat_of(path) if files.is_local(path) else None)
    if (ends := _known.get(key)) is None:
        ends = _known[key] = _ends_of(path, numbers)
    try:
        return _read(path, ends, i)
    except ValueError:  # the list is of another shard, or the shard is damaged
        ends = _known[key] = _from_headers(path)
        return _read(path, ends, i)


def _read(path: epath.Path, ends: np.ndarray, i: int) -> bytes:
    return record_files.read_tfrecord(path, int(ends[i - 1]) if i else 0, int(ends[i]))


def _ends_of(path: epath.Path, numbers: range) -> np.ndarray:
    """int64 [N], by the quickest way that there is."""
    # It is not there. Those who may not list a store are told that they may not read it.
    with suppress(FileNotFoundError, PermissionError):
        first, last = (number * DTYPE.itemsize for number in (numbers.start, numbers.stop))
        ends = np.frombuffer(ranges.read(path.parent / NAME, first, last), DTYPE)
        rises = len(ends) == len(numbers) > 0 and (np.diff(ends, prepend=0) > 0).all()
        # Of a store the size would be one more request.
        if rises and (not files.is_local(path) or ends[-1] == files.stat_of(path).bytes):
            return ends
    if not files.is_local(path):
        stamp = kept.stamp_of(path)
        found = kept.load(path, kept.ENDS, lambda file: _parse(file.read_bytes(), stamp))
        if found is not None:
            return found
    return _from_headers(path)


def _from_headers(path: epath.Path) -> np.ndarray:
    ends = record_files.tfrecord_ends(path)
    if not files.is_local(path):
        kept.keep(path, kept.ENDS, _to_bytes(ends, kept.stamp_of(path)))
    return ends


def _to_bytes(ends: np.ndarray, stamp: tuple[int, int]) -> bytes:
    content = _MAGIC + np.array([*stamp, *ends], DTYPE).tobytes()
    return content + zlib.crc32(content).to_bytes(4, "little")


def _parse(content: bytes, stamp: tuple[int, int]) -> np.ndarray:
    content, checksum = content[:-4], content[-4:]
    if not content.startswith(_MAGIC) or zlib.crc32(content).to_bytes(4, "little") != checksum:
        raise ValueError("another format, or a wrong checksum")
    numbers = np.frombuffer(content, DTYPE, offset=len(_MAGIC))
    if tuple(numbers[:2]) != stamp:
        raise ValueError("the shard has changed")
    return numbers[2:]
