"""A label for each mask, of a sidecar, as categories of an export."""

from __future__ import annotations

import functools
from typing import Any

from sa1b_tfds.building.prepared import TARS
from sa1b_tfds.examples.example import Example
from sa1b_tfds.tars.archive import identity_of


class MaskLabels:
    """The labels in a sidecar.

    Attributes:
      names: of the labels, in their order.
      identity: what changes when the sidecar does.
    """

    def __init__(self, path: str):
        from sa1b_tfds.sidecars.reading import OpenSidecar  # it loads TFDS

        self._sidecar = OpenSidecar("labels", path)
        columns = self._sidecar.columns
        found = [name for name in columns.names if columns.label_names(name) is not None]
        of_masks = [name for name in found if columns.is_per_mask(name)]
        if len(of_masks) != 1:
            raise ValueError(
                f"{path} must have one column with a ClassLabel for each mask, it has"
                f" {of_masks or columns.names}."
            )
        self._key = self._sidecar.key(of_masks[0])
        self.names: list[str] = columns.label_names(of_masks[0]) or []
        self.identity: Any = identity_of(self._sidecar.folder / TARS)

    def categories_of(self, example: Example) -> list[int]:
        """The number of each mask's category, from 1 on; the last one is that of no label.

        Raises:
          MissingRows: if the image has no row.
        """
        values = self._sidecar.values(example.image_id, len(example.masks.counts)) or {}
        none = len(self.names) + 1
        return [none if label < 0 else label + 1 for label in values[self._key].tolist()]


@functools.cache
def mask_labels_in(path: str) -> MaskLabels:
    """The labels in the sidecar at `path`, opened once for each process."""
    return MaskLabels(path)
