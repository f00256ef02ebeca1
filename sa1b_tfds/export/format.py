"""What a format has to say for itself: how a source is cut, what is written of it, what joins it.

A format's files of one piece lie in that piece's folder under the paths that they have in the end,
so that joining the pieces only moves them.
"""

from __future__ import annotations

import abc
import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import ArchivePart, Part
from sa1b_tfds.tars.pairs import Entry, Pair

PIECES = "pieces"


class Item(NamedTuple):
    """One image: its example, and its two files as the archive has them (None if prepared)."""

    example: Example
    pair: Pair | None

    @property
    def name(self) -> str:
        """What its files are called: the id is unique, and no path from the source is followed."""
        return f"sa_{self.example.image_id}"


class Span(NamedTuple):
    """Images `start` to `stop` (None: all) of a part, in order, and the bytes they take there."""

    start: int
    stop: int | None
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """A piece that is written.

    image_ids: of its images, and of those left out because an earlier piece has them.
    counts: 'images', 'masks' and what the format counts besides.
    problems: what was skipped.
    """

    label: str
    fingerprint: Mapping[str, Any]
    image_ids: Sequence[int]
    counts: Mapping[str, int]
    problems: Sequence[BadInput]


class Format(abc.ABC):
    """How examples are written. A frozen dataclass: its fields are its settings."""

    name: ClassVar[str]

    def settings(self) -> dict[str, Any]:
        """What the files depend on, besides the source."""
        return {"format": self.name, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    def check(self, parts: Sequence[Part]) -> None:  # noqa: B027  most take any
        """Raises a ValueError if it cannot be written of these parts."""

    def cut(self, part: Part, limit: int | None, problems: Problems) -> list[Span]:
        """How a part is divided; by default not at all."""
        size = (part.identity() or {"bytes": 0})["bytes"]
        if limit is not None and (count := part.count()) > limit:
            size = size * limit // count
        return [Span(0, limit, size)]

    @abc.abstractmethod
    def written(self, read: int) -> int:
        """About so many bytes come, rather less, of so many bytes of the source."""

    @abc.abstractmethod
    def write(self, items: Iterator[Item], folder: Path, label: str) -> dict[str, int]:
        """Writes a piece; returns what is to be counted besides images and masks."""

    @abc.abstractmethod
    def join(self, root: Path, pieces: Sequence[Finished]) -> None:
        """Makes the output in `root` of its pieces; after a crash it is called again."""


def entries_by_name(part: ArchivePart, problems: Problems) -> list[Entry]:
    """The pairs of an archive by file name: the same, however they lie in it."""
    return sorted(part.indexed(problems).index, key=lambda e: e.jpeg.name.rpartition("/")[2])


def move(root: Path, label: str, source: str, target: str) -> None:
    """Moves a file or folder of a piece to its place, unless it is there already or never was."""
    path = root / PIECES / label / source
    if path.exists():
        (root / target).parent.mkdir(exist_ok=True)
        path.replace(root / target)


def append(path: Path, target: Any) -> None:
    with path.open("rb") as file:
        shutil.copyfileobj(file, target, 2**20)
