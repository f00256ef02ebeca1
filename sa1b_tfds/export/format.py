"""The interface of an export format: how to cut a source, write a piece, and join the pieces.

The files of a piece are in the piece's folder, under the paths that they have in the output. So
joining the pieces mostly moves them.
"""

from __future__ import annotations

import abc
import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.parts import ArchivePart, Part
from sa1b_tfds.tars.name_ids import ids_in_names
from sa1b_tfds.tars.pairs import Entry, Pair

PIECES = "pieces"


class Item(NamedTuple):
    """One image: its example, and its two files from the archive (None for prepared data)."""

    example: Example
    pair: Pair | None

    @property
    def name(self) -> str:
        """The name of its files, from its unique id: no path from the source is used."""
        return f"sa_{self.example.image_id}"


class Span(NamedTuple):
    """Images `start` to `stop` of a part (None: to its end), and their bytes in the source."""

    start: int
    stop: int | None
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished piece.

    label: its name.
    fingerprint: what its files depend on.
    image_ids: the ids of its images, and of images that it leaves to an earlier piece.
    counts: 'images', 'masks' and what else the format counts.
    problems: what was skipped.
    """

    label: str
    fingerprint: Mapping[str, Any]
    image_ids: Sequence[int]
    counts: Mapping[str, int]
    problems: Sequence[BadInput]


class Format(abc.ABC):
    """Writes examples in one format. A subclass is a frozen dataclass; its fields are settings."""

    name: ClassVar[str]

    def settings(self) -> dict[str, Any]:
        """Lists what the files depend on besides the source.

        Returns:
          The format's name and fields, for JSON.
        """
        return {"format": self.name, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    def check(self, parts: Sequence[Part]) -> None:  # noqa: B027  most take any
        """Refuses parts that this format cannot be written from, before anything is written.

        Args:
          parts: the parts of the source.

        Raises:
          ValueError: if a part does not suit the format.
        """

    def cut(
        self, part: Part, limit: int | None, choice: ImageChoice, problems: Problems
    ) -> list[Span]:
        """Divides a part into spans, each of which becomes a piece. By default it is one span.

        Args:
          part: a part of the source.
          limit: the number of images to take; None takes all.
          choice: which images count.
          problems: receives problems of the part as a whole.

        Returns:
          The spans, in order; their numbers count the images that `choice` may take.

        Raises:
          ValueError: if the part does not suit the format.
        """
        size = (part.identity() or {"bytes": 0})["bytes"]
        if limit is not None and (count := part.count()) > limit:
            size = size * limit // count
        if not choice.takes_all and isinstance(part, ArchivePart):
            size = sum(entry.size for entry in entries_by_name(part, choice, problems))
        return [Span(0, limit, size)]

    @abc.abstractmethod
    def written(self, read: int) -> int:
        """Estimates the size of the output, rather too large, to check the disk.

        Args:
          read: bytes of the source.

        Returns:
          Bytes of the output.
        """

    @abc.abstractmethod
    def write(self, items: Iterator[Item], folder: Path, label: str) -> dict[str, int]:
        """Writes a piece.

        Args:
          items: the images of the piece.
          folder: the folder of the piece.
          label: the piece's name.

        Returns:
          What the format counts besides images and masks.
        """

    @abc.abstractmethod
    def join(self, root: Path, pieces: Sequence[Finished]) -> None:
        """Joins the pieces to the output. After a crash it is called again, so it may run twice.

        Args:
          root: the folder of the output, with the pieces in it.
          pieces: all pieces, in order.
        """


def entries_by_name(part: ArchivePart, choice: ImageChoice, problems: Problems) -> list[Entry]:
    """Returns the pairs of an archive by file name, so that their order in it does not matter.

    Without those whose names have an id that the choice does not take.
    """
    index = part.indexed(problems).index
    ids = ids_in_names(index)
    entries = [index[int(i)] for i in np.flatnonzero((ids < 0) | choice.has(ids))]
    return sorted(entries, key=lambda entry: entry.jpeg.name.rpartition("/")[2])


def move(root: Path, label: str, source: str, target: str) -> None:
    """Moves a file or folder of a piece to its place, if the piece still has it."""
    path = root / PIECES / label / source
    if path.exists():
        (root / target).parent.mkdir(exist_ok=True)
        path.replace(root / target)


def append(path: Path, target: Any) -> None:
    """Copies a file to the end of an open one."""
    with path.open("rb") as file:
        shutil.copyfileobj(file, target, 2**20)
