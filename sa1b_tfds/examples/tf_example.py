"""The bytes of a `tf.train.Example`, from lists of values, without TensorFlow or protobuf.

The same values have the same bytes in every process and with every version of protobuf, because
fields are in the order of their names. An image or an embedding is copied once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Buffer = bytes | memoryview

_FIELD_1 = b"\n"

# Protocol buffers' wire format: a message is its fields one after the other, each a tag (number and
# type), a length and that many bytes. A part here is a list of byte strings, joined in the end. The
# numbers are those of tensorflow/core/example/feature.proto.


def example_bytes(features: Mapping[str, Sequence[Buffer]]) -> bytes:
    """Returns the message.

    Args:
      features: what the functions below return, by the feature's name.
    """
    entries: list[Buffer] = []
    for name in sorted(features):
        # An entry of the map: the key is field 1, the value is field 2.
        entries += _field(1, [*_field(1, [name.encode()]), *_field(2, features[name])])
    return b"".join(_field(1, entries))


def bytes_list(values: Sequence[Buffer]) -> list[Buffer]:
    parts: list[Buffer] = []
    for data in values:
        size = len(data)
        parts += (_FIELD_1, _SMALL[size] if size < _FEW else _varint(size), data)
    if len(values) > 1:  # each message around it would sum their sizes again
        parts = [b"".join(parts)]
    return _field(1, parts)


def float_list(values: np.ndarray) -> list[Buffer]:
    packed = values.astype("<f4").tobytes()
    return _field(2, _field(1, [packed]) if packed else [])


def int64_list(values: Sequence[int] | np.ndarray) -> list[Buffer]:
    if isinstance(values, np.ndarray):
        packed = _varints(values)
    else:  # one or two of them
        packed = b"".join(_varint(value % 2**64) for value in values)
    return _field(3, _field(1, [packed]) if packed else [])


def _field(number: int, parts: Sequence[Buffer]) -> list[Buffer]:
    return [_varint(number << 3 | 2), _varint(sum(map(len, parts))), *parts]


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
