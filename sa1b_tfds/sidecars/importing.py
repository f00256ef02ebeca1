"""A sidecar of a file's rows: finds the row of each image, or of each mask, by its key."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import orjson
import tensorflow_datasets.public_api as tfds
from etils import epath

from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.example import Example
from sa1b_tfds.sidecars.columns import Columns, columns_of
from sa1b_tfds.sidecars.joining import join
from sa1b_tfds.sidecars.sorting import Key, SortedRows
from sa1b_tfds.sidecars.source import PreparedSource, SourceTar, ids_of
from sa1b_tfds.sidecars.tables import FILE_NAME, first_row, rows_in, value_in
from sa1b_tfds.sidecars.writing import ImageRow, SidecarWriter, written_tars

KeyKind = Literal["image_id", "file_name", "mask_id"]


class Imported(NamedTuple):
    """What came of a file.

    Attributes:
      images: how many the sidecar has.
      problems: the images without a row, and why.
      repeated: how many keys come more than once, and the first few.
      unknown: how many keys belong to no image or mask of the source, and the first few. None if
        an earlier call wrote tars by other keys than image ids, and ended: it has counted them.
    """

    images: int
    problems: list[BadInput]
    repeated: tuple[int, list[Key]]
    unknown: tuple[int, list[Key]] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A file whose rows become those of a sidecar.

    path: of the file; see `tables.rows_in`.
    kind: what a key is.
    key: the column that has it.
    columns: of the sidecar; those of the file have one value for each image or mask.
    fill: whether images and masks without a row get '', 0, or -1 for a label.
    """

    path: epath.Path
    kind: KeyKind
    key: str
    columns: Columns
    fill: bool = False

    def write(self, writer: SidecarWriter, tars: Sequence[SourceTar]) -> Imported:
        """Sorts the rows, writes those of each tar, and joins the tars.

        Raises:
          ValueError: if a row is damaged; or a key is repeated, and the writer's on_error is
            'raise'.
        """
        staging = writer.folder.staging.folder
        staging.mkdir(parents=True, exist_ok=True)
        path = os.fspath(staging / f"{self._identity()}.sqlite")
        is_new = not os.path.exists(path)
        before = written_tars(writer.folder, tars).values() if is_new else ()
        rows = SortedRows.make(path, self._keyed())
        try:
            if self.kind == "image_id":
                for tar in before:
                    rows.ask(tar.image_ids.tolist())
            repeated = number, some = rows.repeated()
            if number and writer.on_error == "raise":
                raise ValueError(
                    f"{self.path}: {counted(number, 'key')} repeated, such as {some[0]}: take them"
                    " out, or skip errors (--on-error skip) to take the first row of each."
                )

            def make_rows(tar: SourceTar, examples: Iterator[Example]) -> Iterator[ImageRow]:
                yield from self._rows(rows, tar, examples)
                rows.keep()

            problems = writer.write(tars, make_rows)
            is_known = self.kind == "image_id" or not before
            unknown = rows.unknown() if is_known else None
            images = sum(tar.images for tar in join(writer.out, tars))
            return Imported(images, problems, repeated, unknown)
        finally:
            rows.close()

    def _identity(self) -> str:
        """What differs whenever the sorted rows do."""
        stat = os.stat(self.path)
        what = (os.path.abspath(self.path), stat.st_size, stat.st_mtime_ns, self.kind, self.key)
        return hashlib.sha256(repr((what, self.columns.names)).encode()).hexdigest()[:16]

    def _keyed(self) -> Iterator[tuple[Key, list[Any]]]:
        for number, row in enumerate(rows_in(self.path), start=1):
            try:
                yield self._key(row[self.key]), [row[name] for name in self.columns.names]
            except KeyError as e:
                raise ValueError(f"{self.path}, row {number}: it has no {e}") from e
            except ValueError as e:
                raise ValueError(f"{self.path}, row {number}: {e}") from e

    def _key(self, given: Any) -> Key:
        """A key as it is compared: a number, or a file's name without its folder and extension."""
        name = str(given).rpartition("/")[2].partition(".")[0]
        if self.kind == "file_name":
            return name
        number = name.removeprefix("sa_")
        if not number.isdecimal():
            raise ValueError(f"{given!r} is no {self.kind}")
        return int(number)

    def _rows(
        self, rows: SortedRows, tar: SourceTar, examples: Iterator[Example]
    ) -> Iterator[ImageRow]:
        if self.kind == "image_id" and isinstance(tar, PreparedSource):
            for image_id in ids_of(tar.tar).tolist():  # no image has to be read
                yield ImageRow(image_id, None, self._of_key(rows, image_id))
            return
        for example in examples:
            if self.kind == "mask_id":
                values = self._of_masks(rows, example.annotations["id"].tolist())
            else:
                values = self._of_key(rows, self._key(getattr(example, self.kind)))
            yield ImageRow(example.image_id, len(example.masks.counts), values)

    def _of_key(self, rows: SortedRows, key: Key) -> dict[str, Any] | None:
        stored = rows.ask([key]).get(key)
        if stored is not None:
            return self._values(key, stored)
        return self._filled() if self.fill else None

    def _of_masks(self, rows: SortedRows, ids: Sequence[int]) -> dict[str, Any] | None:
        stored = rows.ask(ids)
        if not self.fill and len(stored) < len(ids):
            return None
        filled = self._filled()
        of_masks = [self._values(i, stored[i]) if i in stored else filled for i in ids]
        return {name: self._stacked(name, [each[name] for each in of_masks]) for name in filled}

    def _stacked(self, name: str, values: list[Any]) -> Any:
        if self.columns.is_array(name):
            return np.array(values).reshape(len(values), *self.columns.shape(name)[1:])
        return values

    def _values(self, key: Key, stored: Sequence[Any]) -> dict[str, Any]:
        try:
            values = zip(self.columns.names, stored, strict=True)
            return {name: self._value(name, value) for name, value in values}
        except ValueError as e:
            raise ValueError(f"{self.path}, key {key}: {e}") from e

    def _value(self, name: str, stored: Any) -> Any:
        value = value_in(self.path, stored)
        if not isinstance(value, str) or not self.columns.is_number(name):
            return value
        try:  # CSV has nothing but text
            return np.array(orjson.loads(value))
        except orjson.JSONDecodeError:
            raise ValueError(f"column {name!r}: {value!r} is no number") from None

    def _filled(self) -> dict[str, Any]:
        filled = {}
        for name in self.columns.names:
            value = self.columns.padding(name)
            shape = [side for side in self.columns.shape(name) if side is not None]
            filled[name] = np.full(shape, value) if self.columns.is_array(name) else value
        return filled


def table_of(
    path: epath.Path,
    kind: KeyKind,
    key: str | None = None,
    features: Mapping[str, Any] | None = None,
    fill: bool = False,
) -> Table:
    """Finds the columns of a file.

    Args:
      path, kind, fill: see `Table`.
      key: the column with the key. Defaults to one that is called like its kind, or the file names
        of a folder of arrays.
      features: by column, those of one value. By default, all columns but the key, as the first row
        has them.

    Raises:
      ValueError: if there is no such column.
    """
    if kind not in get_args(KeyKind):
        raise ValueError(f"key must be one of {get_args(KeyKind)}, got {kind!r}.")
    first = first_row(path)
    key = key or (FILE_NAME if path.is_dir() else kind)
    for name in (key, *(features or ())):
        if name not in first:
            raise ValueError(f"{path} has no column {name!r}; it has {sorted(first)}.")
    if features is None:
        values = {name: value_in(path, stored) for name, stored in first.items() if name != key}
        features = {name: _feature_of(name, value) for name, value in values.items()}
    of_key: Callable[[Any], Any] = tfds.features.Sequence if kind == "mask_id" else lambda one: one
    columns = columns_of({name: of_key(feature) for name, feature in features.items()})
    return Table(path=path, kind=kind, key=key, columns=columns, fill=fill)


def _feature_of(name: str, value: Any) -> Any:
    """The feature of a value: text, or an array of the same shape and type."""
    if isinstance(value, str):
        return tfds.features.Text()
    array = np.array(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"column {name!r} has {value!r} at first: state its type.")
    is_wide = not isinstance(value, np.ndarray) and array.dtype == np.float64
    dtype = np.float32 if is_wide else array.dtype
    return tfds.features.Tensor(shape=array.shape, dtype=dtype)
