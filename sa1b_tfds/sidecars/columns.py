"""What the columns of a sidecar may be, and a row of them as a record. No TensorFlow here.

A column is a TFDS feature. It has one value for each image, or, if its first dimension is None, one
for each mask: row i belongs to mask i. Arrays are stored as bytes, so that float16 and bfloat16
keep their size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets.public_api as tfds

from sa1b_tfds.examples.tf_example import Buffer, bytes_list, example_bytes, int64_list

IMAGE_ID = "image_id"
MASK_COUNT = "mask_count"
UNKNOWN = -1  # the mask count of a row that has values of the image alone
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_SPATIAL_RANK = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """What a sidecar has of one image.

    values: by column. An array, a number, or text: bytes for each image, an object array of bytes
      for each mask.
    """

    image_id: int
    mask_count: int
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a sidecar; `features` are those of its records, as TFDS stores them."""

    features: tfds.features.FeaturesDict

    @property
    def names(self) -> list[str]:
        return [name for name in self.features if name not in (IMAGE_ID, MASK_COUNT)]

    def shape(self, name: str) -> tuple[int | None, ...]:
        return tuple(self.features[name].shape)

    def is_per_mask(self, name: str) -> bool:
        return self.shape(name)[:1] == (None,)

    def is_text(self, name: str) -> bool:
        return _is_text(self.features[name])

    def is_array(self, name: str) -> bool:
        """Whether a record has the bytes of an array."""
        return not self.is_text(name) and _is_bytes(self.features[name])

    def is_number(self, name: str) -> bool:
        """Whether it is neither text nor a label."""
        return not self.is_text(name) and not _is_label(self.features[name])

    def label_names(self, name: str) -> list[str] | None:
        """The names of the labels of a column; None if it has none."""
        return _label(self.features[name]).names if _is_label(self.features[name]) else None

    def dtype(self, name: str) -> np.dtype:
        return _dtype(self.features[name])

    def is_spatial(self, name: str) -> bool:
        """Whether it is a map of the image: crops and flips would have to move it."""
        is_float = self.dtype(name).kind in "fV"  # bfloat16 is V
        return is_float and len(self.shape(name)) >= _SPATIAL_RANK and not self.is_per_mask(name)

    def padding(self, name: str) -> Any:
        """The value of a mask that there is not: '', -1 for a class label, or 0."""
        if self.is_text(name):
            return b""
        return -1 if _is_label(self.features[name]) else 0

    def described(self) -> dict[str, str]:
        """What kind of values each column has, as text that differs whenever that does."""
        return {name: _described(self.features[name]) for name in self.names}

    def record(self, image_id: int, mask_count: int | None, values: Mapping[str, Any]) -> bytes:
        """A row as a record.

        Args:
          image_id: of the image.
          mask_count: N, the number of its masks. None, if it is not known, is never compared.
          values: of every column: an array or a tensor; text or a list of it; a label's name or
            number.

        Raises:
          ValueError: if a value does not fit its column.
        """
        if values.keys() != set(self.names):
            raise ValueError(f"it has the columns {sorted(values)} instead of {self.names}")
        count = UNKNOWN if mask_count is None else mask_count
        lists = {IMAGE_ID: int64_list([image_id]), MASK_COUNT: int64_list([count])}
        for name, value in values.items():
            try:
                lists[name] = self._list(name, value, count)
            except (ValueError, TypeError) as e:
                raise ValueError(f"column {name!r}: {e}") from e
        return example_bytes(lists)

    def _list(self, name: str, value: Any, mask_count: int) -> list[Buffer]:
        feature, shape = self.features[name], self.shape(name)
        if self.is_per_mask(name):
            shape = (mask_count, *shape[1:])
        if self.is_text(name) or _is_label(feature):
            values = list(value) if shape else [value]
            if len(values) != (mask_count if shape else 1):
                raise ValueError(f"it has {len(values)} values for {mask_count} masks")
            if self.is_text(name):
                return bytes_list([_utf8(each) for each in values])
            return int64_list(np.array([_number_of(each, feature) for each in values], np.int64))
        array = _cast(as_array(value), _dtype(feature))
        if array.shape != shape:
            raise ValueError(f"its shape is {list(array.shape)}, declared is {list(shape)}")
        if _is_bytes(feature):
            flat = np.ascontiguousarray(array).reshape(-1)
            return bytes_list([flat.view(np.uint8).data])  # not copied here
        return int64_list(array.reshape(-1).astype(np.int64))

    def row(self, record: bytes) -> Row:
        """The row of a record.

        Raises:
          ValueError: if it is no record of these columns.
        """
        try:
            parsed = self.features.deserialize_example_np(record)
            values = {name: parsed[name] for name in self.names}
        except Exception as e:  # protobuf and TFDS have an error of their own for each damage
            raise ValueError(f"it is no record of this sidecar: {e}") from e
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = np.array(value, object if self.is_text(name) else np.int64)
        return Row(int(parsed[IMAGE_ID]), int(parsed[MASK_COUNT]), values)


def columns_of(features: Mapping[str, Any]) -> Columns:
    """The columns that a user declares.

    Args:
      features: by name: `tfds.features.Tensor`, `Scalar`, `Text`, `ClassLabel`, or `Sequence` of
        one of them, which has one for each mask; or a NumPy dtype.

    Raises:
      ValueError: if a name or a feature cannot be stored, saying which and why.
    """
    if not features:
        raise ValueError("features must have at least one column.")
    stored = {
        IMAGE_ID: tfds.features.Scalar(np.int64, doc="Of the image that the row belongs to."),
        MASK_COUNT: tfds.features.Scalar(np.int64, doc="Of the image; -1: unknown."),
    }
    for name, feature in features.items():
        if name in stored or not NAME.match(name):
            raise ValueError(
                f"A column cannot be called {name!r}: take lower-case letters, digits and _, and"
                f" not {IMAGE_ID} or {MASK_COUNT}."
            )
        stored[name] = _stored(name, tfds.features.FeaturesDict({name: feature})[name])
    return Columns(tfds.features.FeaturesDict(stored))


def columns_in(folder: Any) -> Columns:
    """The columns of the sidecar in a version's folder.

    Raises:
      ValueError: if it holds no sidecar.
    """
    try:
        features = tfds.features.FeaturesDict.from_config(folder)
    except Exception as e:  # TFDS has an error of another kind for each damage
        raise ValueError(f"{folder} cannot be read: its features.json is damaged ({e}).") from e
    if not {IMAGE_ID, MASK_COUNT} <= set(features):
        raise ValueError(f"{folder} holds no sidecar: it has {sorted(features)}.")
    return Columns(features)


def _stored(name: str, feature: Any) -> Any:
    kinds = tfds.features
    one = feature.feature if type(feature) is kinds.Sequence else feature
    plain = type(one) in (kinds.Tensor, kinds.Scalar)
    if not (plain or isinstance(one, kinds.Text | kinds.ClassLabel)):
        raise ValueError(
            f"Column {name!r} is a {type(feature).__name__}: take a Tensor, Scalar, Text or"
            " ClassLabel, or a Sequence of one of them for a value of each mask."
        )
    shape = tuple(feature.shape)
    if None in shape[1:]:
        raise ValueError(
            f"Column {name!r} has the shape {list(shape)}: only the first dimension may be None,"
            " which is that of the masks."
        )
    if _is_text(one) or not plain:
        if len(shape) > 1 or shape not in ((), (None,)):
            raise ValueError(f"Column {name!r}: text has one value for each image or mask.")
        if type(feature) is kinds.Tensor and shape:
            return kinds.Sequence(kinds.Text(doc=feature.doc))
        return feature
    if _dtype(feature) in (np.uint32, np.uint64) or _dtype(feature).kind == "c":
        raise ValueError(f"Column {name!r}: {_dtype(feature).name} cannot be stored; take int64.")
    if shape or _dtype(feature).kind in "fV":
        return kinds.Tensor(
            shape=shape, dtype=feature.np_dtype, encoding=kinds.Encoding.BYTES, doc=feature.doc
        )
    return feature


def as_array(value: Any) -> np.ndarray:
    """A NumPy array of an array, or of a tensor of TensorFlow or torch on any device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which `numpy()` does not know
            import ml_dtypes
            import torch

            return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return np.asarray(value)


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biufV" or (array.dtype.kind == "f" and dtype.kind in "iu"):
        raise ValueError(f"{array.dtype} cannot be stored as {dtype.name}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind in "iub":
        right = np.array_equal(cast.astype(array.dtype), array)
    else:
        right = np.array_equal(np.isfinite(cast), np.isfinite(array))
    if not right:
        raise ValueError(f"a value is out of the range of {dtype.name}")
    return cast


def _dtype(feature: Any) -> np.dtype:
    return np.dtype(feature.np_dtype)


def _described(feature: Any) -> str:
    shape = list(feature.shape)
    if _is_label(feature):
        one = _label(feature)
        names = hashlib.sha256(repr(one.names).encode()).hexdigest()[:8]
        return f"label {shape} of {one.num_classes} ({names})"
    return f"{'text' if _is_text(feature) else _dtype(feature).name} {shape}"


def _utf8(text: Any) -> bytes:
    text = _plain(text)
    if not isinstance(text, str | bytes):
        raise TypeError(f"{text!r} is not text")
    return text.encode() if isinstance(text, str) else text


def _number_of(label: Any, feature: Any) -> int:
    try:
        return _label(feature).encode_example(_plain(label))
    except KeyError:
        raise ValueError(f"{label!r} is none of its labels") from None


def _plain(value: Any) -> Any:
    """The Python number or text of an array or tensor without dimensions."""
    return value.item() if hasattr(value, "item") else value


def _is_text(feature: Any) -> bool:
    return not _is_label(feature) and _dtype(feature).kind in "OSU"


def _is_label(feature: Any) -> bool:
    return isinstance(_label(feature), tfds.features.ClassLabel)


def _label(feature: Any) -> Any:
    """The feature of one value, of a feature that has one for each mask."""
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def _is_bytes(feature: Any) -> bool:
    return np.dtype(feature.get_serialized_info().np_dtype) == np.object_
