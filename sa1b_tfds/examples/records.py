"""Examples <-> bytes on disk, as TFDS stores them, without TensorFlow.

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
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import google_crc32c
import numpy as np
from etils import epath

from sa1b_tfds.examples.annotations import Example
from sa1b_tfds.masks import rle

_FIELD_1 = b"\n"
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


def serialise(example: Example) -> bytes:
    """The `tf.train.Example` of an example from `annotations.to_example`."""
    masks = example["masks"]
    features = {
        "file_name": _bytes_list([example["file_name"].encode()]),
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


def deserialise(record: bytes) -> Example:
    """The example of a record: what `annotations.to_example` returned.

    Raises:
      ValueError: if it is no record of this dataset.
    """
    from google.protobuf import message
    from tensorflow_datasets.proto import tf_example_pb2  # loads no TensorFlow

    try:
        features = tf_example_pb2.Example.FromString(record).features.feature
        if missing := {*_COLUMNS, *_OTHERS} - features.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        height, width = features["masks/size"].int64_list.value
        columns = {name: _column(features[name], *spec) for name, spec in _COLUMNS.items()}
        return {
            "image": features["image"].bytes_list.value[0],
            "image_id": features["image_id"].int64_list.value[0],
            "file_name": features["file_name"].bytes_list.value[0].decode(),
            "masks": rle.check(list(features["masks/counts"].bytes_list.value), (height, width)),
            "annotations": {name.rpartition("/")[2]: c for name, c in columns.items()},
        }
    except (message.DecodeError, IndexError, ValueError) as e:
        raise ValueError(f"it is no record of segment_anything 2: {e}") from e


def _column(feature: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = feature.float_list.value if dtype == "float32" else feature.int64_list.value
    return np.array(values, dtype).reshape(shape)


_OTHERS = ("image", "image_id", "file_name", "masks/size", "masks/counts")
_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "annotations/id": ("int64", (-1,)),
    "annotations/area": ("int64", (-1,)),
    "annotations/bbox": ("float32", (-1, 4)),
    "annotations/crop_box": ("float32", (-1, 4)),
    "annotations/predicted_iou": ("float32", (-1,)),
    "annotations/stability_score": ("float32", (-1,)),
    "annotations/point_coords": ("float32", (-1, 2)),
}


def read(path: epath.Path, file_format: str) -> Iterator[bytes]:
    """Yields the records of a shard, in order.

    Raises:
      ValueError: if a record is cut off or its checksum is wrong.
    """
    if file_format == "array_record":
        yield from _read_array_record(path)
        return
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        while (length := _tfrecord_length(file, path, end)) is not None:
            yield _tfrecord_body(file, path, length)


def tfrecord_offsets(path: epath.Path) -> np.ndarray:
    """Where the records of a TFRecord file begin, by its headers alone: int64 [N].

    Raises:
      ValueError: if a header is broken or the last record is cut off.
    """
    offsets = []
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        position = file.seek(0)
        while (length := _tfrecord_length(file, path, end)) is not None:
            offsets.append(position)
            position = file.seek(length + 4, os.SEEK_CUR)
    return np.array(offsets, np.int64)


def read_tfrecord(path: epath.Path, offset: int) -> bytes:
    """The record that begins at one of `tfrecord_offsets`; raises what `read` raises."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(offset)
        length = _tfrecord_length(file, path, end)
        if length is None:
            raise ValueError(f"{path}: it ends before byte {offset}")
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
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    try:
        for _ in range(reader.num_records()):
            yield reader.read()
    finally:
        reader.close()


def file_crc32c(path: epath.Path) -> int:
    """The CRC-32C of a whole file."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = google_crc32c.extend(checksum, block)
    return checksum


def open_writer(path: epath.Path, file_format: str) -> Writer:
    """Opens a new file in one of `FORMATS`."""
    return FORMATS[file_format](path)


class _TFRecordWriter:
    def __init__(self, path: epath.Path):
        self.crc32c = 0
        self._file = path.open("wb")

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


# Protocol buffers' wire format: a message is its fields one after the other, each a tag (number and
# type), a length and that many bytes. A part here is a list of byte strings, joined in the end, so
# that an image is copied once. The numbers are those of tensorflow/core/example/feature.proto.


def _field(number: int, parts: list[bytes]) -> list[bytes]:
    return [_varint(number << 3 | 2), _varint(sum(map(len, parts))), *parts]


def _bytes_list(values: Sequence[bytes]) -> list[bytes]:
    parts: list[bytes] = []
    for data in values:
        size = len(data)
        parts += (_FIELD_1, _SMALL[size] if size < _FEW else _varint(size), data)
    if len(values) > 1:  # each message around it would sum their sizes again
        parts = [b"".join(parts)]
    return _field(1, parts)


def _float_list(values: np.ndarray) -> list[bytes]:
    packed = values.astype("<f4").tobytes()
    return _field(2, _field(1, [packed]) if packed else [])


def _int64_list(values: Sequence[int] | np.ndarray) -> list[bytes]:
    if isinstance(values, np.ndarray):
        packed = _varints(values)
    else:  # one or two of them
        packed = b"".join(_varint(value % 2**64) for value in values)
    return _field(3, _field(1, [packed]) if packed else [])


def _varints(values: np.ndarray) -> bytes:
    rest = values.astype(np.uint64)[:, None] >> _SHIFTS
    written = rest > 0
    written[:, 0] = True
    groups = (rest & np.uint64(0x7F)).astype(np.uint8)
    groups[:, :-1] |= written[:, 1:].astype(np.uint8) << 7
    return groups[written].tobytes()


def _varint(value: int) -> bytes:
    if value < _FEW:
        return _SMALL[value]
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7)


_SHIFTS = np.arange(0, 64, 7, dtype=np.uint64)
_SMALL = [bytes([value]) for value in range(0x80)]
_SMALL += [bytes([low | 0x80, high]) for high in range(1, 0x80) for low in range(0x80)]
_FEW = len(_SMALL)
