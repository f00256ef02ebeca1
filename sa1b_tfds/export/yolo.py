"""YOLO segmentation labels, as ultralytics and FastSAM's trainer read them.

One text file an image, one line a mask: the class, always 0, and a polygon (`outline.py`) in
fractions of the image's width and height.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from sa1b_tfds.core import extras
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import Part
from sa1b_tfds.export.format import Finished, Item, move
from sa1b_tfds.export.images import IMAGES, ImageFiles
from sa1b_tfds.export.outline import polygons_of

LABELS = "labels"
DATA = "data.yaml"
_YAML = """\
# Nothing is held out: export other tars to validate on, and name that folder of images here.
train: images
val: images
names:
  0: object
"""
_LABELS_SHARE = 0.3  # of a tar's bytes; 0.18 of those of two tars with 32 photographs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yolo(ImageFiles):
    """`data.yaml`, `images/` and `labels/`.

    images: 'copy' (JPEG bytes), 'link' (second names of extracted files) or 'none'.
    """

    name: ClassVar[str] = "yolo"

    def check(self, parts: Sequence[Part]) -> None:
        extras.load("cv2", "export")
        super().check(parts)

    def written(self, read: int) -> int:
        return int(read * (_LABELS_SHARE + (self.images == "copy")))

    def write(self, items: Iterator[Item], folder: Path, label: str) -> dict[str, int]:
        labels = folder / LABELS / label
        empty = 0
        for item in items:
            labels.mkdir(parents=True, exist_ok=True)
            lines = labels_of(item.example)
            (labels / f"{item.name}.txt").write_text("".join(f"{line}\n" for line in lines))
            empty += len(item.example.masks.counts) - len(lines)
            self.save(item, folder, label)
        return {"masks without a pixel": empty}

    def join(self, root: Path, pieces: Sequence[Finished]) -> None:
        (root / DATA).write_text(_YAML)
        for piece in pieces:
            for kind in (IMAGES, LABELS):
                move(root, piece.label, f"{kind}/{piece.label}", f"{kind}/{piece.label}")


def labels_of(example: Example) -> list[str]:
    """The lines of an example's label file: one for each mask that has a pixel."""
    height, width = example.masks.size
    lines = []
    for polygon in polygons_of(example.masks):
        if polygon is not None:
            numbers = (polygon / (width, height)).ravel().tolist()
            lines.append("0 " + " ".join([f"{number:.6f}" for number in numbers]))
    return lines
