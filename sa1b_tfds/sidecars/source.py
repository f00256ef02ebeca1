"""What a sidecar is made of: the images of a tar or of prepared data, tar by tar.

Whatever they are stored in, the images of a tar come in the order of its shards.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from etils import epath

from sa1b_tfds.building.prepared import TARS, Folder
from sa1b_tfds.building.shard_files import ShardFile
from sa1b_tfds.building.shard_order import shuffled
from sa1b_tfds.building.source_record import is_from
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples import record_files, records
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import examples_of, find_data
from sa1b_tfds.tars.archive import Archive
from sa1b_tfds.tars.scratch import readable_in_any_order


class SourceTar(Protocol):
    """A tar of which the images are at hand, in whatever form."""

    @property
    def name(self) -> str: ...

    def identity(self) -> dict[str, int]:
        """The identity of the tar, as the data knows it."""

    def is_source_of(self, finished: FinishedTar) -> bool:
        """Whether these rows are those of its images."""

    def open(
        self, scratch: epath.Path, problems: Problems
    ) -> contextlib.AbstractContextManager[tuple[int, Iterator[Example]]]:
        """Gives a `with` block the number of images, and the images in the order of the shards."""


@dataclasses.dataclass(frozen=True)
class ArchiveSource:
    """A tar or an extracted folder."""

    archive: Archive

    @property
    def name(self) -> str:
        return self.archive.name

    def identity(self) -> dict[str, int]:
        if (identity := self.archive.identity()) is None:
            raise FileNotFoundError(f"{self.name} is not there any more.")
        return identity

    def is_source_of(self, finished: FinishedTar) -> bool:
        return is_from(self.archive, finished.source)

    @contextlib.contextmanager
    def open(
        self, scratch: epath.Path, problems: Problems
    ) -> Iterator[tuple[int, Iterator[Example]]]:
        with (
            os_errors_named(self.name),
            readable_in_any_order(self.archive, scratch, problems) as (reader, entries),
        ):
            examples = examples_of(reader, shuffled(entries), problems)
            yield len(entries), (example for _, example in examples)


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """The shards of a tar in prepared data."""

    tar: FinishedTar
    shards: Sequence[ShardFile]

    @property
    def name(self) -> str:
        return self.tar.archive

    def identity(self) -> dict[str, int]:
        return dict(self.tar.source)

    def is_source_of(self, finished: FinishedTar) -> bool:
        ids = ids_of(self.tar)
        return finished.pairs == len(ids) and bool(np.isin(finished.image_ids, ids).all())

    @contextlib.contextmanager
    def open(
        self, scratch: epath.Path, problems: Problems
    ) -> Iterator[tuple[int, Iterator[Example]]]:
        del scratch
        if not all(file.has_its_size() for file in self.shards):
            raise ValueError(
                f"Shards of {self.name} are damaged or gone: `sa1b build --add` mends the data."
            )
        with os_errors_named(self.name):
            yield self.tar.images, self._examples()

    def _examples(self) -> Iterator[Example]:
        for file in self.shards:
            if file.path is not None:
                yield from map(records.deserialise, record_files.read(file.path, file.file_format))


def find_tars(source: epath.PathLike, config: str | None = None) -> list[SourceTar]:
    """Finds the tars whose images are at hand.

    Args:
      source, config: as `examples.parts.find_parts` takes them.

    Raises:
      FileNotFoundError: if there is nothing of that kind.
      ValueError: if prepared data does not say of which tars it is.
    """
    found = find_data(source, config)
    if not isinstance(found, epath.Path):
        return [ArchiveSource(archive) for archive in found]
    prepared = Folder(check_lists_tars(found)).prepared()
    return [PreparedSource(tar, prepared.shard_files[tar.archive]) for tar in prepared.tars]


def sidecar_folder(version: epath.Path) -> Folder:
    """The folder of a sidecar's version. Shards keep their names when the sidecar is renamed."""
    return Folder(version, dataset="[a-z0-9_]+")


def check_lists_tars(folder: epath.Path) -> epath.Path:
    """Returns the folder of prepared data; raises a ValueError if it does not list its tars."""
    if not (folder / TARS).exists():
        raise ValueError(
            f"{folder} has no {TARS}, so it is not known which image is where: sidecars go with"
            " data that `sa1b build` or this package's builder has prepared, and with tars."
        )
    return folder


def ids_of(tar: FinishedTar) -> np.ndarray:
    """int64, the ids of the images in a tar's shards, in their order."""
    return tar.image_ids[: tar.images]  # after them: those that were left out
