"""The images of an export, as files `images/<label>/sa_<id>.jpg`, with a folder for each piece."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.examples.parts import ArchivePart, Part
from sa1b_tfds.export.format import Format, Item
from sa1b_tfds.tars.archive import FolderArchive

IMAGES = "images"
Images = Literal["copy", "link", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFiles(Format):
    """A format with image files.

    Links are second names of extracted files (hard links), because supervision refuses symbolic
    links. An image is copied instead if it is on another file system, or if its JPEG has a tag that
    turns it, because the tag is left out (`jpeg.unturned`).

    Args:
      images: 'copy' writes the JPEG bytes, 'link' links extracted files, 'none' writes no images.
        Defaults to 'copy'.

    Raises:
      ValueError: if `images` is something else.
    """

    images: Images = "copy"

    def __post_init__(self) -> None:
        if self.images not in ("copy", "link", "none"):
            raise ValueError(f"images must be 'copy', 'link' or 'none', got {self.images!r}.")

    def check(self, parts: Sequence[Part]) -> None:
        if self.images == "link" and not all(_is_extracted(part) for part in parts):
            raise ValueError(
                "images='link' needs extracted files to link to. Images in tars and in prepared"
                " data are not files: use 'copy'."
            )

    def save(self, item: Item, folder: Path, label: str) -> str:
        """Writes or links an image of a piece.

        Args:
          item: the image.
          folder: the folder of the piece.
          label: the piece's name.

        Returns:
          The image's path below `images/`.
        """
        name = f"{label}/{item.name}.jpg"
        path = folder / IMAGES / name
        if self.images != "none":
            path.parent.mkdir(parents=True, exist_ok=True)
        image = item.example.image
        if self.images == "link" and item.pair is not None and item.pair.jpeg == image:
            files.link_or_copy(epath.Path(item.pair.jpeg_name), epath.Path(path))
        elif self.images != "none":
            path.write_bytes(image)
        return name


def _is_extracted(part: Part) -> bool:
    return isinstance(part, ArchivePart) and isinstance(part.archive, FolderArchive)
