"""Tars of the same pairs: for WebDataset, or a subset in SA-1B's own form.

The bytes are those of the source, except that a tag that turns an image is removed
(`jpeg.unturned`).

WebDataset joins neighbouring files into a sample if their names are equal up to the first dot. In
SA-1B's tars the two files of an image may be anywhere, so it finds twice as many samples as there
are images.
"""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.parts import ArchivePart, Part
from sa1b_tfds.examples.write_tars import add_file
from sa1b_tfds.export.format import Finished, Format, Item, Span, entries_by_name, move

_TAR = "images.tar"


class _Tars(Format):
    prefix: ClassVar[str]

    def check(self, parts: Sequence[Part]) -> None:
        if not all(isinstance(part, ArchivePart) for part in parts):
            raise ValueError(
                "Prepared data does not hold the JSON files that these tars need: repack the tars"
                " that it was built from, or export it to another format."
            )

    def written(self, read: int) -> int:
        return read

    def write(self, items: Iterator[Item], folder: Path, label: str) -> dict[str, int]:
        with tarfile.open(folder / _TAR, "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in items:
                if item.pair is not None:
                    add_file(tar, f"{self.prefix}{item.name}.jpg", item.example.image)
                    add_file(tar, f"{self.prefix}{item.name}.json", item.pair.json)
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebDataset(_Tars):
    """Writes `000000.tar`, ...: pairs side by side, sorted by name, cut by size.

    Args:
      shard_size: the largest size of a shard in bytes; a larger image gets its own. Defaults to
        10 ** 9.
      shard_images: the most images per shard. Defaults to no limit.

    Raises:
      ValueError: if a number is not positive.
    """

    shard_size: int = 10**9
    shard_images: int | None = None

    name: ClassVar[str] = "webdataset"
    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be positive, got {self.shard_size}.")
        if self.shard_images is not None and self.shard_images < 1:
            raise ValueError(f"shard_images must be positive, got {self.shard_images}.")

    def cut(
        self, part: Part, limit: int | None, choice: ImageChoice, problems: Problems
    ) -> list[Span]:
        # A shard begins with each tar, and where the next image would exceed a limit.
        if not isinstance(part, ArchivePart):
            raise ValueError(f"{part.name} is not an archive.")
        spans: list[Span] = []
        start = size = 0
        room = self.shard_size - tarfile.RECORDSIZE  # tarfile pads the end to a whole record
        entries = entries_by_name(part, choice, problems)[:limit]
        for i, entry in enumerate(entries):
            if i > start and (size + entry.size > room or i - start == self.shard_images):
                spans.append(Span(start, i, size))
                start, size = i, 0
            size += entry.size
        return [*spans, Span(start, len(entries), size)]

    def join(self, root: Path, pieces: Sequence[Finished]) -> None:
        full = [piece for piece in pieces if piece.counts["images"]]
        for number, piece in enumerate(full):
            move(root, piece.label, _TAR, f"{number:06d}.tar")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SA1BTars(_Tars):
    """Writes one `sa_*.tar` for each tar or folder, with `./sa_<id>.jpg` and `.json` in it.

    A tar of which no image is taken makes none.
    """

    name: ClassVar[str] = "sa1b"
    prefix: ClassVar[str] = "./"

    def join(self, root: Path, pieces: Sequence[Finished]) -> None:
        taken = {piece.label for piece in pieces}
        for label in [piece.label for piece in pieces if piece.counts["images"]]:
            name = label if label.startswith("sa_") else f"sa_{label}"
            while name != label and name in taken:  # the folder `x` beside the tar `sa_x`
                name += "_"
            taken.add(name)
            move(root, label, _TAR, f"{name}.tar")
