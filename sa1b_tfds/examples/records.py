"""An example <-> a record, the bytes that TFDS stores of it, without TensorFlow.

`serialise` gives what TFDS's ExampleSerializer gives for this dataset's features, with the fields
in the order of their names, so that the same example has the same bytes in every process and with
every version of protobuf. The files that records are in: `record_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sa1b_tfds.examples.annotations import Example
from sa1b_tfds.masks import rle

_FIELD_1 = b"\n"


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
