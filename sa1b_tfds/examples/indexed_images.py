"""The images of several parts, counted through: any of them by its number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import IndexedPart


class IndexedImages:
    """The images of indexed parts, one part after the other."""

    def __init__(self, parts: Sequence[IndexedPart]):
        self.parts = list(parts)
        self._ends = np.cumsum([part.count() for part in self.parts])

    @property
    def names(self) -> list[str]:
        """The names of the parts, in order."""
        return [part.name for part in self.parts]

    @property
    def counts(self) -> list[int]:
        """The number of images of each part."""
        return np.diff(self._ends, prepend=0).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def example(self, i: int, with_masks: bool = True) -> Example:
        """Reads image i, from -len to len - 1; raises what `IndexedPart.example` raises.

        Raises:
          IndexError: if there is no such image.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"Image {i} of {len(self)}.")
        i %= len(self)
        number = int(np.searchsorted(self._ends, i, "right"))
        part = self.parts[number]
        return part.example(i - int(self._ends[number]) + part.count(), with_masks)
