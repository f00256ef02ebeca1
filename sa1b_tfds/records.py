"""Examples -> bytes on disk, as TFDS stores them, without TensorFlow.

`serialise` gives what TFDS's ExampleSerializer gives for this dataset's features, with the fields
in a fixed order, so that the same example has the same bytes in every process. TFRecord's framing
is TensorFlow's (`lib/io/record_writer.h`); array_record's is its own library's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from typing import Any, Protocol

import google_crc32c
import numpy as np
from etils import epath
from tensorflow_datasets import proto

from sa1b_tfds.annotations import Example

_BytesList = proto.tf_feature_pb2.BytesList
_FloatList = proto.tf_feature_pb2.FloatList
_Int64List = proto.tf_feature_pb2.Int64List
_Feature = proto.tf_feature_pb2.Feature


class Writer(Protocol):
    """Writes records to one file. What was not closed is no whole file."""

    def write(self, record: bytes) -> None: ...

    def close(self) -> None: ...


def serialise(example: Example) -> bytes:
    """The `tf.train.Example` of an example from `annotations.to_example`."""
    masks = example["masks"]
    features = {
        "image": _bytes([example["image"]]),
        "image_id": _Feature(int64_list=_Int64List(value=[example["image_id"]])),
        "file_name": _bytes([example["file_name"]]),
        "masks/size": _Feature(int64_list=_Int64List(value=masks.size)),
        "masks/counts": _bytes(masks.counts),
    }
    for name, column in example["annotations"].items():
        features[f"annotations/{name}"] = _numbers(column)
    record = proto.tf_example_pb2.Example(features=proto.tf_feature_pb2.Features(feature=features))
    return record.SerializeToString(deterministic=True)


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


def _bytes(values: list[bytes | str]) -> Any:
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return _Feature(bytes_list=_BytesList(value=encoded))


def _numbers(column: np.ndarray) -> Any:
    values = column.ravel().tolist()
    if column.dtype.kind == "f":
        return _Feature(float_list=_FloatList(value=values))
    return _Feature(int64_list=_Int64List(value=values))
