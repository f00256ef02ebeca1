"""An example <-> a record, the bytes that TFDS stores of it, without TensorFlow.

`serialise` gives what TFDS's ExampleSerializer gives for this dataset's features, with the fields
in the order of their names, so that the same example has the same bytes in every process and with
every version of protobuf. The files that records are in: `record_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sa1b_tfds.examples.example import COLUMNS, Column, Example
from sa1b_tfds.masks import rle

_FIELD_1 = b"\n"
_OTHERS = ("image", "image_id", "file_name", "masks/size", "masks/counts")


def serialise(example: Example) -> bytes:
    """The `tf.train.Example` of an example."""
    features = {
        "file_name": _bytes_list([example.file_name.encode()]),
        "image": _bytes_list([example.image]),
        "image_id": _int64_list([example.image_id]),
        "masks/counts": _bytes_list(example.masks.counts),
        "masks/size": _int64_list(example.masks.size),
    }
    for column in COLUMNS:
        to_list = _float_list if column.dtype is np.float32 else _int64_list
        features[column.key] = to_list(example.annotations[column.name].ravel())
    entries = []
    for name in sorted(features):
        # An entry of the map: the key is field 1, the value is field 2.
        entries += _field(1, [*_field(1, [name.encode()]), *_field(2, features[name])])
    return b"".join(_field(1, entries))


def deserialise(record: bytes) -> Example:
    """The example of a record.

    Raises:
      ValueError: if it is no record of this dataset.
    """
    from google.protobuf import message
    from tensorflow_datasets.proto import tf_example_pb2  # loads no TensorFlow

    try:
        features = tf_example_pb2.Example.FromString(record).features.feature
        if missing := {*_OTHERS, *(column.key for column in COLUMNS)} - features.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        height, width = features["masks/size"].int64_list.value
        return Example(
            image=features["image"].bytes_list.value[0],
            image_id=features["image_id"].int64_list.value[0],
            file_name=features["file_name"].bytes_list.value[0].decode(),
            masks=rle.check(list(features["masks/counts"].bytes_list.value), (height, width)),
            annotations={c.name: _array(features[c.key], c) for c in COLUMNS},
        )
    except (message.DecodeError, IndexError, ValueError) as e:
        raise ValueError(f"it is no record of segment_anything 2: {e}") from e


def _array(feature: Any, column: Column) -> np.ndarray:
    is_float = column.dtype is np.float32
    values = feature.float_list.value if is_float else feature.int64_list.value
    return np.array(values, column.dtype).reshape(-1, *column.shape)


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
