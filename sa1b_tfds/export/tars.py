"""Tars of the same pairs: as WebDataset reads them, or a subset in SA-1B's own form.

The bytes are those of the source, but for a tag that turns an image (`jpeg.unturned`).

WebDataset takes files that follow each other and share their name up to the first dot for one
sample. In SA-1B's tars the two files of an image lie anywhere, so it finds twice as many samples as
there are images.
"""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples.parts import ArchivePart, Part
from sa1b_tfds.examples.write_tars import add_file
from sa1b_tfds.export.format import Finished, Format, Item, Span, entries_by_name, move

_TAR = "images.tar"


class _Tars(Format):
    prefix: ClassVar[str]

    def check(self, parts: Sequence[Part]) -> None:
        if not all(isinstance(part, ArchivePart) for part in parts):
            raise ValueError(
                "Prepared data no longer has the JSON files that these tars hold: repack the tars"
                " it was built of, or export it to another format."
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
    """`000000.tar`, ...: pairs side by side, sorted by name, cut by size.

    shard_size: bytes that no shard exceeds, unless one image does.
    shard_images: at most so many images a shard; None sets no limit.
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

    def cut(self, part: Part, limit: int | None, problems: Problems) -> list[Span]:
        """A new shard begins with each tar, and wherever the next image would be too much."""
        if not isinstance(part, ArchivePart):
            raise ValueError(f"{part.name} is no archive.")
        spans: list[Span] = []
        start = size = 0
        room = self.shard_size - tarfile.RECORDSIZE  # its end is filled up to a record
        entries = entries_by_name(part, problems)[:limit]
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
    """One tar for each tar or folder: `sa_*.tar`, by its name, with `./sa_<id>.jpg` and `.json`."""

    name: ClassVar[str] = "sa1b"
    prefix: ClassVar[str] = "./"

    def join(self, root: Path, pieces: Sequence[Finished]) -> None:
        taken = {piece.label for piece in pieces}
        for label in [piece.label for piece in pieces]:
            name = label if label.startswith("sa_") else f"sa_{label}"
            while name != label and name in taken:  # the folder `x` beside the tar `sa_x`
                name += "_"
            taken.add(name)
            move(root, label, _TAR, f"{name}.tar")
