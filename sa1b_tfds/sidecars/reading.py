"""A sidecar as readers are given it, opened: its columns, and the values of any image.

No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from absl import logging
from etils import epath

from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.sidecars.columns import UNKNOWN, as_array, columns_in
from sa1b_tfds.sidecars.row_index import MissingRows, RowIndex
from sa1b_tfds.sidecars.source import sidecar_folder
from sa1b_tfds.sidecars.writing import VERSION

Missing = Literal["raise", "skip"]


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

    Attributes:
      name: under which readers give its columns.
      spec: see `Sidecar`.
      columns: of its rows.
      index: where its rows are.
    """

    def __init__(self, name: str, spec: Sidecar | epath.PathLike):
        self.name = name
        self.spec = spec if isinstance(spec, Sidecar) else Sidecar(path=spec)
        folder = find_version(self.spec.path)
        self.columns = columns_in(folder)
        self._check_names(folder)
        self.index = RowIndex(folder)

    @property
    def folder(self) -> epath.Path:
        return self.index.folder

    @property
    def missing(self) -> str:
        """'raise', 'skip' or 'default'."""
        return "default" if isinstance(self.spec.missing, Mapping) else self.spec.missing

    def _check_names(self, folder: epath.Path) -> None:
        names = self.columns.names
        given = self.spec.missing if isinstance(self.spec.missing, Mapping) else {}
        if unknown := sorted({*given, *self.spec.padding} - set(names)):
            raise ValueError(f"{folder} has no columns {unknown}; it has {names}.")
        if given and (without := sorted(set(names) - set(given))):
            raise ValueError(f"missing must have a value for the columns {without} as well.")

    def key(self, column: str) -> str:
        """The key of a column in a batch or an element: the sidecar's name if it has only one."""
        return self.name if len(self.columns.names) == 1 else f"{self.name}/{column}"

    def check(self, ids: np.ndarray) -> np.ndarray:
        """bool [N], which images a reader gives.

        Raises:
          MissingRows: naming images without a row, if `missing` is 'raise'.
        """
        has_row = self.index.places(ids)[0] >= 0
        lost = ids[~has_row]
        if len(lost) and self.missing == "raise":
            raise MissingRows(self.folder, lost.tolist())
        if self.missing != "skip":
            return np.ones(len(ids), bool)
        if len(lost):
            logging.warning(
                "%s of %d are left out, which have no row in %s: %s",
                counted(len(lost), "image"),
                len(ids),
                self.folder,
                first_few([str(image_id) for image_id in lost]),
            )
        return has_row

    def values(self, image_id: int, mask_count: int | None) -> dict[str, Any] | None:
        """The values of one image by their keys, read from the disk; None if it is to be left out.

        Args:
          image_id: of the image.
          mask_count: the number of its masks. None leaves the columns of masks out.

        Raises:
          MissingRows: if it has no row, and `missing` is 'raise'.
          ValueError: if the row is damaged, or of an image with another number of masks.
        """
        record = self.index.record(image_id)
        if record is None:
            if self.missing == "raise":
                raise MissingRows(self.folder, [image_id])
            if self.missing == "skip":
                return None
            values = self._defaults(mask_count or 0)
        else:
            row = self.columns.row(record)
            if row.image_id != image_id or (
                mask_count is not None and row.mask_count not in (mask_count, UNKNOWN)
            ):
                raise ValueError(
                    f"The sidecar {os.fspath(self.folder)} was made of other data: its row is of"
                    f" image {row.image_id} with {row.mask_count} masks, and the image is"
                    f" {image_id} with {mask_count}."
                )
            values = row.values
        return {
            self.key(name): value
            for name, value in values.items()
            if mask_count is not None or not self.columns.is_per_mask(name)
        }

    def _defaults(self, mask_count: int) -> dict[str, Any]:
        values = dict(self.default_values)
        for name, value in values.items():
            if self.columns.is_per_mask(name):
                values[name] = np.broadcast_to(value, (mask_count, *value.shape))
            elif self.columns.is_text(name):
                values[name] = value.item()
        return values

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


def find_version(path: epath.PathLike) -> epath.Path:
    """The folder of a sidecar's version: `path` itself or the one in it.

    Raises:
      FileNotFoundError: if there is none.
    """
    path = epath.Path(path)
    if (path / "dataset_info.json").exists():
        return path
    sidecar_folder(path / VERSION).put_back_if_free()
    if not (path / VERSION / "dataset_info.json").exists():
        raise FileNotFoundError(
            f"{path} holds no sidecar. If its pieces are written, join them: `sa1b sidecar join`."
        )
    return path / VERSION
