"""Examples -> bytes on disk, as TFDS stores them, without TensorFlow.

`serialise` gives what TFDS's ExampleSerializer gives for this dataset's features, with the fields
in the order of their names, so that the same example has the same bytes in every process and with
every version of protobuf. TFRecord's framing is TensorFlow's (`lib/io/record_writer.h`);
array_record's is its own library's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import google_crc32c
import numpy as np
from etils import epath

from sa1b_tfds.annotations import Example

_MAX_UINT64 = 2**64 - 1
_FIELD_1 = b"\n"


class Writer(Protocol):
    """Writes records to one file. What was not closed is no whole file."""

    def write(self, record: bytes) -> None: ...

    def close(self) -> None: ...


def serialise(example: Example) -> bytes:
    """The `tf.train.Example` of an example from `annotations.to_example`."""
    masks = example["masks"]
    features = {
        "file_name": _bytes_list([example["file_name"]]),
        "image": _bytes_list([example["image"]]),
        "image_id": _int64_list([example["image_id"]]),
        "masks/counts": _bytes_list(masks.counts),
        "masks/size": _int64_list(masks.size),
    }
    for name, column in example["annotations"].items():
        to_list = _float_list if column.dtype.kind == "f" else _int64_list
        features[f"annotations/{name}"] = to_list(column.ravel())
    entries = []
    for name in sorted(features):
        # An entry of the map: the key is field 1, the value is field 2.
        entries += _field(1, [*_field(1, [name.encode()]), *_field(2, features[name])])
    return b"".join(_field(1, entries))


def open_writer(path: epath.Path, file_format: str) -> Writer:
    """Opens a new file in one of `FORMATS`."""
    return FORMATS[file_format](path)


class _TFRecordWriter:
    def __init__(self, path: epath.Path):
        self._file = path.open("wb")

    def write(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        self._file.write(length + _masked_crc(length))
        self._file.write(record)
        self._file.write(_masked_crc(record))

    def close(self) -> None:
        self._file.close()


class _ArrayRecordWriter:
    """Its library writes to local paths only; TFDS reads with the same options."""

    def __init__(self, path: epath.Path):
        from array_record.python import array_record_module

        self._writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")

    def write(self, record: bytes) -> None:
        with _full_disk_named():
            self._writer.write(record)

    def close(self) -> None:
        with _full_disk_named():
            self._writer.close()


@contextlib.contextmanager
def _full_disk_named() -> Iterator[None]:
    """The library has one exception for everything."""
    try:
        yield
    except RuntimeError as e:
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(e) else errno.EIO
        raise OSError(number, str(e)) from e


FORMATS: dict[str, Any] = {"tfrecord": _TFRecordWriter, "array_record": _ArrayRecordWriter}


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


# Protocol buffers' wire format: a message is its fields one after the other, each a tag (number and
# type), a length and that many bytes. A part here is a list of byte strings, joined in the end, so
# that an image is copied once. The numbers are those of tensorflow/core/example/feature.proto.


def _field(number: int, parts: list[bytes]) -> list[bytes]:
    return [_varint(number << 3 | 2), _varint(sum(map(len, parts))), *parts]


def _bytes_list(values: Sequence[bytes | str]) -> list[bytes]:
    parts: list[bytes] = []
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        parts += (_FIELD_1, _varint(len(data)), data)
    return _field(1, parts)


def _float_list(values: np.ndarray) -> list[bytes]:
    packed = values.astype("<f4").tobytes()
    return _field(2, _field(1, [packed]) if packed else [])


def _int64_list(values: Iterable[int]) -> list[bytes]:
    packed = b"".join([_varint(int(value) & _MAX_UINT64) for value in values])
    return _field(3, _field(1, [packed]) if packed else [])


def _varint(value: int) -> bytes:
    if value < len(_SMALL):
        return _SMALL[value]
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7)


_SMALL = [bytes([value]) for value in range(0x80)]
_SMALL += [bytes([low | 0x80, high]) for high in range(1, 0x80) for low in range(0x80)]
