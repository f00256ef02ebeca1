"""The configs of `segment_anything`: which tars, and what becomes of their images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets.public_api as tfds

from sa1b_tfds.examples.id_set import IdSet, as_id_set


@dataclasses.dataclass(eq=False, kw_only=True)
class SegmentAnythingConfig(tfds.core.BuilderConfig):
    """Which tars, and what becomes of their images.

    name: also the name of the folder that the prepared data goes to.
    tars: the numbers of the tars, as in sa_000020.tar. Defaults to all that are there.
    long_side: shrink images to this many pixels on their longer side (masks and points keep the
      original size). By default the JPEG bytes stay as they are.
    image_ids: take only these images of the tars: a file of ids, or ids, each a number, a name such
      as 'sa_1.jpg' or a path (docs/subsets.md). Defaults to all.

    Raises:
      ValueError: if tars, long_side or image_ids is invalid.
      FileNotFoundError: if image_ids is a file that is not there.
    """

    name: str
    tars: Sequence[int] | None = None
    long_side: int | None = None
    image_ids: Any = None

    def __post_init__(self) -> None:
        tars, side = self.tars, self.long_side
        if tars is not None and not (tars and all(isinstance(n, int) and n >= 0 for n in tars)):
            raise ValueError(f"tars must hold numbers from 0 on, or be None, got {tars!r}.")
        if side is not None and not (isinstance(side, int) and side > 0):
            raise ValueError(f"long_side must be a positive integer or None, got {side!r}.")
        if self.image_ids is not None:
            self.image_ids: IdSet | None = as_id_set(self.image_ids)

    def has_tar(self, number: int | None) -> bool:
        """Whether the config takes a tar.

        Args:
          number: the number in the tar's name; None if it has none.

        Returns:
          True if it does.
        """
        return self.tars is None or number in self.tars

    def only(self, image_ids: Any) -> SegmentAnythingConfig:
        """Makes a config of the same tars with some images only, named `<name>_ids`.

        Args:
          image_ids: see the class.

        Returns:
          The config.
        """
        return SegmentAnythingConfig(
            name=f"{self.name}_ids",
            tars=self.tars,
            long_side=self.long_side,
            image_ids=image_ids,
            description=f"{self.description} Only images of a list of ids.",
        )


def _config(name: str, tars: range | None, long_side: int | None) -> SegmentAnythingConfig:
    which = "All tars" if tars is None else f"The first {len(tars)} tars by name"
    image = "JPEG bytes as they are" if long_side is None else f"images of {long_side} pixels"
    return SegmentAnythingConfig(
        name=name, tars=tars, long_side=long_side, description=f"{which}, {image}."
    )


ALL = [
    _config("original", None, None),
    _config("original_1pct", range(10), None),
    _config("original_10pct", range(100), None),
    _config("resized_1024", None, 1024),
    _config("resized_1024_1pct", range(10), 1024),
    _config("resized_1024_10pct", range(100), 1024),
]
