"""Any image at once, by its number: from tars, extracted files and prepared shards.

A source holds where its images are and no open file, so that it is pickled, forked and shared by
threads as it is. Memory: tars and folders under 50 bytes an image (`tars.index`), array_record
none; a TFRecord's offsets, 8 bytes an image, are found when the shard is first read.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Protocol

import numpy as np
from etils import epath

from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.examples import array_records, record_files, records
from sa1b_tfds.examples.annotations import Example, member_of, read_pair
from sa1b_tfds.examples.parts import ArchivePart, ShardPart, find_parts
from sa1b_tfds.tars.index import IndexedArchive, index_all


class Source(Protocol):
    """A tar, an extracted folder or a prepared shard."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def example(self, i: int) -> Example:
        """What `annotations.to_example` returns, for 0 <= i < len(self).

        Raises:
          BadInput: if it is none, naming source, member and reason.
        """


@dataclasses.dataclass(frozen=True)
class ArchiveSource:
    """A tar or an extracted folder."""

    archive: IndexedArchive

    @property
    def name(self) -> str:
        return self.archive.name

    def __len__(self) -> int:
        return len(self.archive)

    def example(self, i: int) -> Example:
        with os_errors_named(self.name):
            pair = self.archive.read(i)
        try:
            return read_pair(pair)
        except ValueError as e:
            raise BadInput(self.name, member_of(pair, e), str(e)) from e


@dataclasses.dataclass(frozen=True)
class ShardSource:
    """A shard of prepared data, TFRecord or array_record."""

    shard: ShardPart

    @property
    def name(self) -> str:
        return self.shard.name

    def __len__(self) -> int:
        return self.shard.length

    def example(self, i: int) -> Example:
        path = self.shard.path
        try:
            if self.shard.file_format == "array_record":
                record = array_records.read(os.fspath(path), i)
            else:
                record = record_files.read_tfrecord(path, int(_offsets(path)[i]))
            return records.deserialise(record)
        except (ValueError, IndexError) as e:
            raise BadInput(self.name, f"record {i}", str(e)) from e


def find_sources(
    root_dir: epath.PathLike, config: str | None = None, problems: Problems | None = None
) -> list[Source]:
    """Finds what `examples.find_parts` finds, ready for random access.

    Args:
      root_dir, config: see `find_parts`.
      problems: takes what is no pair, torn or unsafe in an archive; default: raise it.

    Raises:
      FileNotFoundError: if there is nothing.
    """
    problems = problems or Problems()
    sources: list[Source] = []
    parts = find_parts(root_dir, config)
    archives = [part.archive for part in parts if isinstance(part, ArchivePart)]
    sources += map(ArchiveSource, index_all(archives, problems))
    sources += [ShardSource(part) for part in parts if isinstance(part, ShardPart)]
    return sources


@functools.cache
def _offsets(path: epath.Path) -> np.ndarray:
    return record_files.tfrecord_offsets(path)
