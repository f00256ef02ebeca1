"""One SA-1B pair (jpeg, json) -> one checked `Example`.

The JSON is described in the README of the dataset (`segment_anything/README.md`). Everything in it
is checked here before it is used; errors say which annotation and which field, and the caller adds
the archive and the member. Whether annotations agree with their masks: `consistency`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import (
    COLUMNS,
    Column,
    Example,
    fraction_boxes,
    no_annotations,
)
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.runs import MalformedRLE, check_size
from sa1b_tfds.tars.pairs import Pair

_NUMBERED = re.compile("sa_([0-9]+)")


def parse(data: bytes, image: bytes) -> Example:
    """Parses and checks a `sa_<id>.json`.

    Args:
      data: the file's bytes.
      image: its image's, which the example gets as they are; they are not looked at.

    Raises:
      ValueError: if it is not JSON, lacks a field, or a value is not what it has to be.
    """
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        number = _NO_NUMBER.match(e.doc, e.pos)
        why = f"it holds {number[0]} (char {e.pos}), which is no number of JSON" if number else e
        raise ValueError(f"it is not JSON: {why}") from e
    about = _field(content, "image", dict, "the file")
    annotations = _field(content, "annotations", list, "the file")
    height, width = (_field(about, key, int, "image") for key in ("height", "width"))
    size = check_size((height, width), "the image's size")
    columns = {
        column.name: convert(_fields(annotations, column.name, kind), column.name)
        for column, kind, convert in _IN_JSON
    }
    for column in COLUMNS:
        if column.unit == "fractions":
            columns[column.name] = fraction_boxes(columns[column.name], size)
    segmentations = _fields(annotations, "segmentation", object)
    area = columns["area"]
    if len(area) and not 0 <= area.min() <= area.max() <= height * width:
        raise ValueError("annotations: every 'area' must be between 0 and height * width")
    return Example(
        image=image,
        image_id=int(_integers([_field(about, "image_id", int, "image")], "image_id")[0]),
        file_name=_field(about, "file_name", str, "image"),
        masks=_masks(segmentations, size),
        annotations={name: _narrow(column, name) for name, column in columns.items()},
    )


def to_example(image: bytes, annotations: bytes, long_side: int | None = None) -> Example:
    """Makes an example of a pair's two files.

    Args:
      image: JPEG bytes.
      annotations: JSON bytes.
      long_side: shrink the image to this many pixels; None keeps its bytes as they are, but for a
        tag that turns it (`jpeg.unturned`). Masks and points keep the original size.

    Raises:
      ValueError: if either is malformed, or the JSON's size is not the JPEG's.
    """
    example = parse(annotations, image)
    size = jpeg.image_size(image)
    if size != example.masks.size:
        raise ValueError(
            "its size {}x{} (height x width) disagrees with the image's {}x{}".format(
                *example.masks.size, *size
            )
        )
    image = jpeg.unturned(image)
    if long_side is not None:
        image = jpeg.shrink(image, long_side)
    return dataclasses.replace(example, image=image)


def read_pair(pair: Pair, long_side: int | None = None) -> Example:
    """Makes an example of a pair from an archive.

    Args:
      pair: from any archive; the folders in its names do not matter.
      long_side: see `to_example`.

    Raises:
      ValueError: what `to_example` raises; or if the JSON says that it belongs to another image
        than the one beside which it was found.
    """
    example = to_example(pair.jpeg, pair.json, long_side)
    image_id, file_name = example.image_id, example.file_name
    if not _is_of(pair.json_name, image_id, file_name):
        raise ValueError(
            f"it says image_id {image_id}, file_name {ascii(file_name)[1:-1]:.80}: it belongs to"
            " another image"
        )
    return example


def read_image(pair: Pair) -> Example:
    """Makes an example without masks of a pair; its JSON is not parsed if the name has the id.

    Raises:
      ValueError: what `read_pair` raises, of what is read.
    """
    base, stem = _base_and_stem(pair.jpeg_name)
    named = _NUMBERED.fullmatch(stem)
    if named is None or int(named[1]) >= 2**63:
        return read_pair(pair).without_masks()
    size = jpeg.image_size(pair.jpeg)
    return Example(
        image=jpeg.unturned(pair.jpeg),
        image_id=int(named[1]),
        file_name=base,
        masks=rle.Checked([], size),
        annotations=no_annotations(),
    )


def member_of(pair: Pair, error: ValueError) -> str:
    """The name of the file of a pair that is wrong, by the error that `to_example` raised."""
    return pair.jpeg_name if isinstance(error, jpeg.BadJpeg) else pair.json_name


def _is_of(json_name: str, image_id: int, file_name: str) -> bool:
    """Whether all that names an image agrees; folders, suffixes and leading zeros do not matter.

    In names such as sa_0012.jpg the number has to be the id. Beside a JSON whose name has none, any
    `file_name` is accepted that does not begin as SA-1B's do.
    """
    _, name = _base_and_stem(json_name)
    base, stem = _base_and_stem(file_name)
    own, other = _NUMBERED.fullmatch(name), _NUMBERED.fullmatch(stem)
    if own is None:
        return name in (base, stem) or not stem.startswith("sa_")
    # Strings: a name may have more digits than Python makes an integer of.
    numbers = {(match[1].lstrip("0") or "0") for match in (own, other) if match}
    return numbers == {str(image_id)}


def _base_and_stem(path: str) -> tuple[str, str]:
    """('sa_1.json', 'sa_1') for './sa_1.json'; some people's paths have backslashes."""
    base = path.replace("\\", "/").rpartition("/")[2]
    return base, base.rpartition(".")[0] or base


def _masks(segmentations: list[Any], size: tuple[int, int]) -> rle.Checked:
    counts = _usual_counts(segmentations, list(size))
    if counts is None:
        counts = []
        for i, segmentation in enumerate(segmentations):
            try:
                counts.append(rle.to_rle(segmentation, size)["counts"])
            except MalformedRLE as e:
                raise ValueError(f"annotation {i}: the RLE is malformed: {e.reason}") from e
            except ValueError as e:
                raise ValueError(f"annotation {i}: segmentation: {e}") from e
    try:
        return rle.check(counts, size)
    except MalformedRLE as e:
        raise ValueError(f"annotation {e.index}: the RLE is malformed: {e.reason}") from e


def _usual_counts(segmentations: list[Any], size: list[int]) -> list[bytes] | None:
    """The counts, if each is a string and each size the image's, as SA-1B has it; else None."""
    try:
        counts = [segmentation["counts"] for segmentation in segmentations]
        sizes = [segmentation["size"] for segmentation in segmentations]
    except (KeyError, TypeError, IndexError):
        return None
    usual = set(map(type, counts)) <= {str} and sizes.count(size) == len(sizes)
    return list(map(str.encode, counts)) if usual else None


def _narrow(column: np.ndarray, name: str) -> np.ndarray:
    """float64 -> float32; integers stay."""
    if column.dtype.kind != "f":
        return column
    with np.errstate(over="ignore"):
        narrow = column.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise ValueError(f"annotations: every {name!r} must be finite as float32")
    return narrow


def _field(content: Any, name: str, kind: type | tuple[type, ...], where: str | int) -> Any:
    where = f"annotation {where}" if isinstance(where, int) else where
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f"{where} lacks the field {name!r}")
    value = content[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        got = type(value).__name__ if isinstance(value, list | dict) else f"{value!r:.60}"
        raise ValueError(f"{where}: {name!r} must be {_KINDS[kind]}, got {got}")
    return value


def _fields(annotations: list[Any], name: str, kind: type | tuple[type, ...]) -> list[Any]:
    """-> the same field of every annotation."""
    try:
        values = [a[name] for a in annotations]
        kinds = set(map(type, values))
        allowed = set(kind) if isinstance(kind, tuple) else {kind}
        if kinds <= allowed or (kind is object and bool not in kinds):
            return values
    except (KeyError, TypeError):
        pass
    return [_field(a, name, kind, i) for i, a in enumerate(annotations)]  # says what is wrong


def _integers(values: list[Any], name: str) -> np.ndarray:
    """-> int64 [N]; takes 6206.0 for 6206."""
    exact = values
    if not set(map(type, values)) <= {int}:
        exact = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    if not set(map(type, exact)) <= {int} or not _fit_int64(exact):
        raise ValueError(f"annotations: every {name!r} must be an integer of at most 64 bits")
    return np.array(exact, np.int64)


def _fit_int64(values: list[int]) -> bool:
    return not values or (min(values) >= -(2**63) and max(values) < 2**63)


def _floats(*shape: int) -> Callable[[list[Any], str], np.ndarray]:
    """-> float64 [N, last of shape]."""

    def convert(values: list[Any], name: str) -> np.ndarray:
        numbers = values
        for side in shape:
            if not set(map(type, numbers)) <= {list} or not set(map(len, numbers)) <= {side}:
                raise ValueError(f"annotations: every {name!r} must be {list(shape)} numbers")
            numbers = list(itertools.chain.from_iterable(numbers))
        # Before NumPy sees them: it would make room for the longest string among them.
        if not set(map(type, numbers)) <= {int, float}:
            raise ValueError(f"annotations: every {name!r} must be numbers")
        return np.array(numbers, np.float64).reshape(len(values), *shape[-1:])

    return convert


_NO_NUMBER = re.compile("NaN|Infinity")  # which Python's json writes
_NUMBER = (int, float)
_KINDS: dict[Any, str] = {
    int: "an integer",
    _NUMBER: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    object: "an RLE",
}


def _in_json(column: Column) -> tuple[Any, Callable[[list[Any], str], np.ndarray]]:
    """What kind of value the JSON has for one mask, and what makes an array of N of them."""
    if column.dtype is np.float32:
        return list if column.shape else _NUMBER, _floats(*column.json_shape)
    # 6206.0 is a number of pixels; an id is an integer.
    return _NUMBER if column.unit else int, _integers


_IN_JSON = [(column, *_in_json(column)) for column in COLUMNS]
