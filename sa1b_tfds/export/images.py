"""The images of an export, as files: `images/<label>/sa_<id>.jpg`, one folder a piece."""

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
    """images: 'copy' (JPEG bytes), 'link' or 'none'.

    Links are second names of extracted files (hard links), as supervision refuses symbolic ones;
    on another file system they become copies, and so does a JPEG with a tag that turns it, as the
    tag is left out (`jpeg.unturned`).
    """

    images: Images = "copy"

    def __post_init__(self) -> None:
        if self.images not in ("copy", "link", "none"):
            raise ValueError(f"images must be 'copy', 'link' or 'none', got {self.images!r}.")

    def check(self, parts: Sequence[Part]) -> None:
        if self.images == "link" and not all(_is_extracted(part) for part in parts):
            raise ValueError(
                "images='link' needs extracted files to link to; images in tars and in prepared"
                " data are no files of their own: use 'copy'."
            )

    def save(self, item: Item, folder: Path, label: str) -> str:
        """Writes or links an image of a piece; returns its path below `images/`."""
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
