"""A sidecar in a folder: which images it has, and the row of any of them. No TensorFlow here."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from sa1b_tfds.building.prepared import Folder, PreparedTars
from sa1b_tfds.core.text import first_few
from sa1b_tfds.examples import record_files
from sa1b_tfds.sidecars.columns import Row, as_array, columns_in
from sa1b_tfds.sidecars.source import check_lists_tars, ids_of
from sa1b_tfds.sidecars.writing import VERSION

Missing = Literal["raise", "skip"]


class MissingRows(ValueError):
    """Images of the data have no row in a sidecar."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sidecar:
    """A sidecar, and what a reader does where it has nothing.

    Args:
      path: its folder, or the folder of its version in that.
      missing: what happens to images without a row. 'raise' is an error that names their ids.
        'skip' leaves them out. A dict has a value for each column, which every such image gets: of
        one image, or of one mask. Defaults to 'raise'.
      padding: values for places of a batch without a mask, by column. Defaults to 0, -1 for a class
        label, and '' for text.

    Raises:
      ValueError: if missing is something else.
    """

    path: epath.PathLike
    missing: Missing | Mapping[str, Any] = "raise"
    padding: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.missing, Mapping) and self.missing not in ("raise", "skip"):
            raise ValueError(
                f"missing must be 'raise', 'skip' or a dict of values, got {self.missing!r}."
            )


# By the name under which readers give its columns.
Sidecars = Mapping[str, "Sidecar | epath.PathLike"]


class OpenSidecar:
    """A sidecar whose lists were read; its rows stay on the disk.

    Memory: 28 bytes an image.

    Attributes:
      name: under which readers give its columns.
      folder: of its version.
      columns: of its rows.
      spec: see `Sidecar`.
      paths: of its shards.
      ids: int64 [R], the image of each row, ascending.
    """

    def __init__(self, name: str, spec: Sidecar | epath.PathLike):
        self.name = name
        self.spec = spec if isinstance(spec, Sidecar) else Sidecar(path=spec)
        self.folder = _version(epath.Path(self.spec.path))
        self.columns = columns_in(self.folder)
        self._check_names()
        prepared = Folder(self.folder).prepared()
        files = [file for tar in prepared.tars for file in prepared.shard_files[tar.archive]]
        self.paths = [file.path for file in files if file.path is not None]
        if len(self.paths) < len(files):
            lost = len(files) - len(self.paths)
            raise FileNotFoundError(f"{self.folder} lacks {lost} of its {len(files)} shards.")
        lengths = [file.shard.examples for file in files]
        ids = np.concatenate([np.empty(0, np.int64), *map(ids_of, prepared.tars)])
        order = np.argsort(ids, kind="stable")
        self.ids = ids[order]
        self._shard = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[order]
        ends = np.cumsum(lengths, dtype=np.int64)
        self._number = (np.arange(len(ids)) - np.repeat(ends - lengths, lengths))[order]

    def _check_names(self) -> None:
        names = self.columns.names
        spec = self.spec
        given = spec.missing if isinstance(spec.missing, Mapping) else {}
        if unknown := sorted({*given, *spec.padding} - set(names)):
            raise ValueError(f"{self.folder} has no columns {unknown}; it has {names}.")
        if given and (without := sorted(set(names) - set(given))):
            raise ValueError(f"missing must have a value for the columns {without} as well.")

    def key(self, column: str) -> str:
        """The key of a column in a batch or an element: the sidecar's name if it has only one."""
        return self.name if len(self.columns.names) == 1 else f"{self.name}/{column}"

    def places(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int32 shard, int64 number in it) of each image's row; the shard is -1 without a row."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int32), np.zeros(len(ids), np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        found = self.ids[at] == ids
        return np.where(found, self._shard[at], -1), np.where(found, self._number[at], 0)

    def check(self, ids: np.ndarray) -> np.ndarray:
        """bool [N], which images a reader gives.

        Raises:
          MissingRows: naming images without a row, if `missing` is 'raise'.
        """
        has_row = self.places(ids)[0] >= 0
        if self.spec.missing == "raise" and not has_row.all():
            lost = ids[~has_row]
            raise MissingRows(
                f"The sidecar {os.fspath(self.folder)} has no row of {len(lost):,} of {len(ids):,}"
                f" images: {first_few([str(i) for i in lost])}. Write the rows of their tars, or"
                " read with Sidecar(path=..., missing='skip'), or with a dict of values."
            )
        return has_row if self.spec.missing == "skip" else np.ones(len(ids), bool)

    def row(self, image_id: int, mask_count: int | None) -> Row | None:
        """The row of one image, read from the disk; None if it is to be left out.

        Args:
          image_id: of the image.
          mask_count: the number of its masks, to compare. None does not compare it.

        Raises:
          MissingRows: if it has no row, and `missing` is 'raise'.
          ValueError: if the row is damaged, or of an image with another number of masks.
        """
        if not self.check(np.array([image_id]))[0]:
            return None
        [shard], [number] = self.places(np.array([image_id]))
        if shard < 0:
            return Row(image_id, mask_count or 0, self._defaults(mask_count or 0))
        path = self.paths[shard]
        try:
            row = self.columns.row(record_files.read_tfrecord_number(path, int(number)))
        except (ValueError, IndexError) as e:
            raise ValueError(f"{path}: record {number}: {e}") from e
        if row.image_id != image_id or mask_count not in (None, row.mask_count):
            raise ValueError(
                f"{path}: record {number}: it is of image {row.image_id} with {row.mask_count}"
                f" masks, but image {image_id} has {mask_count}: the sidecar is of other data."
            )
        return row

    def _defaults(self, mask_count: int) -> dict[str, Any]:
        return {
            name: np.broadcast_to(value, (mask_count, *value.shape))
            if self.columns.is_per_mask(name)
            else value
            for name, value in self.default_values.items()
        }

    @functools.cached_property
    def default_values(self) -> dict[str, Any]:
        """The value of an image or a mask without a row, by column; see `Sidecar.missing`."""
        given = self.spec.missing
        return {} if isinstance(given, str) else {n: self._value(n, v) for n, v in given.items()}

    @functools.cached_property
    def padding(self) -> dict[str, Any]:
        """The value of a mask that there is not, of the columns that have a row for each mask."""
        given = self.spec.padding
        columns = self.columns
        return {
            name: self._value(name, given.get(name, columns.padding(name)))
            for name in columns.names
            if columns.is_per_mask(name)
        }

    def _value(self, name: str, value: Any) -> Any:
        """One value of a column, as its rows have it."""
        if self.columns.is_text(name):
            return np.array(value.encode() if isinstance(value, str) else value, object)
        shape = [side for side in self.columns.shape(name) if side is not None]
        dtype = self.columns.dtype(name)
        return np.broadcast_to(as_array(value).astype(dtype), shape)


def open_sidecars(sidecars: Sidecars | None) -> list[OpenSidecar]:
    """Opens each of them.

    Raises:
      FileNotFoundError: if a folder holds no sidecar, or a shard is gone.
      ValueError: if it holds something else.
    """
    return [OpenSidecar(name, spec) for name, spec in (sidecars or {}).items()]


def _version(path: epath.Path) -> epath.Path:
    """The folder of the version: `path` itself or the one in it."""
    if (path / "dataset_info.json").exists():
        return path
    Folder(path / VERSION).clean_if_free()  # it puts back what a killed join has set aside
    if not (path / VERSION / "dataset_info.json").exists():
        raise FileNotFoundError(
            f"{path} holds no sidecar. If its pieces are written, join them: `sa1b sidecar join`."
        )
    return path / VERSION


def ids_of_files(folder: epath.Path, files: Sequence[Any]) -> list[np.ndarray]:
    """The image ids in parts of the shards of prepared data, in their order.

    Args:
      folder: of the prepared data.
      files: TFDS's file instructions: which records of which shard.

    Raises:
      ValueError: if the data does not list its tars.
    """
    prepared: PreparedTars = Folder(check_lists_tars(folder)).prepared()
    of_shard = {}
    for tar in prepared.tars:
        begin = 0
        for file, shard in zip(prepared.shard_files[tar.archive], tar.shards, strict=True):
            if file.path is not None:
                of_shard[file.path.name] = ids_of(tar)[begin : begin + shard.examples]
            begin += shard.examples
    found = []
    for file in files:
        ids = of_shard[epath.Path(file.filename).name]
        found.append(ids[file.skip : None if file.take < 0 else file.skip + file.take])
    return found
