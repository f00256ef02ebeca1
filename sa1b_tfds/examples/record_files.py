"""Files of records, TFRecord or array_record: written, read in order, or one record at once.

What a record holds: `records`. TFRecord's framing is TensorFlow's (`lib/io/record_writer.h`);
array_record's is its own library's, and `array_records` reads any record of it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import google_crc32c
import numpy as np
from etils import epath

from sa1b_tfds.core import gfile, ranges

FRAME = 16  # the bytes of a TFRecord that are not of the record: its length and two checksums
_LENGTH = struct.Struct("<Q")
_BLOCK = 2**20


class Writer(Protocol):
    """Writes records to one file. What was not closed is no whole file.

    Attributes:
      crc32c: of the whole file, once it is closed.
    """

    crc32c: int

    def write(self, record: bytes) -> None: ...

    def close(self) -> None: ...


def read(path: epath.Path, file_format: str) -> Iterator[bytes]:
    """Yields the records of a shard, in order.

    Raises:
      ValueError: if a record is cut off or its checksum is wrong, or if it is array_record
        on s3://.
      OSError: if the shard cannot be read.
    """
    if file_format == "array_record":
        yield from _read_array_record(path)
        return
    with ranges.opened(path) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        while (length := _tfrecord_length(file, path, end)) is not None:
            yield _tfrecord_body(file, path, length)


def tfrecord_ends(path: epath.Path) -> np.ndarray:
    """Where the records of a TFRecord file end, by its headers alone: int64 [N], in bytes.

    Raises:
      ValueError: if a header is broken or the last record is cut off.
      OSError: if the file cannot be read.
    """
    ends = []
    with ranges.opened(path) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        while (length := _tfrecord_length(file, path, end)) is not None:
            ends.append(file.seek(length + 4, os.SEEK_CUR))
    return np.array(ends, np.int64)


def read_tfrecord(path: epath.Path, start: int, end: int) -> bytes:
    """Reads the record that is from byte `start` to `end`; raises what `read` raises."""
    data = ranges.read(path, start, end)
    file = io.BytesIO(data)
    length = _tfrecord_length(file, path, len(data))
    if length is None or length + FRAME != end - start:
        raise ValueError(f"{path}: there is no record from byte {start} to {end}")
    return _tfrecord_body(file, path, length)


def _tfrecord_length(file: BinaryIO, path: epath.Path, end: int) -> int | None:
    """Reads a record's header; None at the end of the file, which is at byte `end`."""
    if not (header := file.read(_LENGTH.size)):
        return None
    length = _LENGTH.unpack(header)[0] if len(header) == _LENGTH.size else 0
    if file.read(4) != _masked_crc(header):
        raise ValueError(f"{path}: the header before byte {file.tell()} is broken")
    if file.tell() + length + 4 > end:
        raise ValueError(f"{path}: the record after byte {file.tell()} is cut off")
    return length


def _tfrecord_body(file: BinaryIO, path: epath.Path, length: int) -> bytes:
    record = file.read(length)
    if file.read(4) != _masked_crc(record):
        raise ValueError(f"{path}: the record before byte {file.tell()} is broken")
    return record


def _read_array_record(path: epath.Path) -> Iterator[bytes]:
    refuse_array_record_on_s3(path)
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    try:
        for _ in range(reader.num_records()):
            yield reader.read()
    finally:
        reader.close()


def refuse_array_record_on_s3(path: epath.PathLike) -> None:
    """Raises a ValueError for array_record on s3://, which its library cannot open."""
    if os.fspath(path).startswith("s3:/"):
        raise ValueError(
            f"{os.fspath(path)} cannot be read: the library of array_record does not open s3://."
            " Copy the folder to a disk, or prepare the data as TFRecord, which is read from s3://."
        )


def file_crc32c(path: epath.Path) -> int:
    """The CRC-32C of a whole file."""
    checksum = 0
    with ranges.opened(path) as file:
        while block := file.read(_BLOCK):
            checksum = google_crc32c.extend(checksum, block)
    return checksum


def open_writer(path: epath.Path, file_format: str) -> Writer:
    """Opens a new file in one of `FORMATS`."""
    return FORMATS[file_format](path)


class _TFRecordWriter:
    def __init__(self, path: epath.Path):
        self.crc32c = 0
        self._file = gfile.opened_to_write(path)

    def write(self, record: bytes) -> None:
        length = _LENGTH.pack(len(record))
        for part in (length + _masked_crc(length), record, _masked_crc(record)):
            self._file.write(part)
            self.crc32c = google_crc32c.extend(self.crc32c, part)

    def close(self) -> None:
        self._file.close()


class _ArrayRecordWriter:
    """Its library writes to local paths only; TFDS reads with the same options."""

    def __init__(self, path: epath.Path):
        from array_record.python import array_record_module

        self.crc32c = 0
        self._path = path
        self._writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")

    def write(self, record: bytes) -> None:
        with _as_os_errors():
            self._writer.write(record)

    def close(self) -> None:
        with _as_os_errors():
            self._writer.close()
        self.crc32c = file_crc32c(self._path)  # the library alone knows what it has written


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Raises an OSError in place of the library's one exception; its text names a full disk."""
    try:
        yield
    except RuntimeError as e:
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(e) else errno.EIO
        raise OSError(number, str(e)) from e


FORMATS: dict[str, Any] = {"tfrecord": _TFRecordWriter, "array_record": _ArrayRecordWriter}


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
