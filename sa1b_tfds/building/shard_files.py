"""What is known of a shard, and whether its file is still the one that was written.

Every look at data compares sizes. Bytes are read only before something relies on a shard that
cannot be undone: `sa1b build --add` keeps it, or the tar that it was made of is deleted.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath
from tqdm import tqdm

from sa1b_tfds.core import files
from sa1b_tfds.examples import record_files

_THREADS = 8  # they wait for the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """What was written to a file.

    examples: its records. bytes: its size. crc32c: of the file.
    lengths: the bytes that each record takes in a TFRecord file, as base64 of uint32, so that they
      take little room in JSON.

    Data that an earlier version prepared has no crc32c and no lengths; then they are None.
    """

    examples: int
    bytes: int
    crc32c: int | None = None
    lengths: str | None = None

    def record_ends(self) -> np.ndarray:
        """int64 [examples], where each record ends in the file; zeros if that is not known."""
        if self.lengths is None:
            return np.zeros(self.examples, np.int64)
        return np.cumsum(np.frombuffer(base64.b64decode(self.lengths), "<u4"), dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """Where a shard should be; `path` is None if there is no file of its number."""

    path: epath.Path | None
    shard: Shard
    file_format: str

    def has_its_size(self) -> bool:
        if self.path is None:
            return False
        try:
            return files.stat_of(self.path).bytes == self.shard.bytes
        except OSError:
            return False

    def is_intact(self) -> bool:
        """Reads it. Without a checksum of the file, those of its records are compared.

        Raises:
          OSError: if it cannot be read now, but is perhaps intact.
        """
        if self.path is None or not self.has_its_size():
            return False
        try:
            if self.shard.crc32c is not None:
                return record_files.file_crc32c(self.path) == self.shard.crc32c
            number = sum(1 for _ in record_files.read(self.path, self.file_format))
            return number == self.shard.examples
        except (ValueError, RuntimeError):  # array_record raises the last one
            return False
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            return False


def which_are_intact(shards: Sequence[ShardFile], with_bar: bool = False) -> list[bool]:
    """`is_intact` of each, several at a time; with a bar for people where it may take hours."""
    found = []
    with (
        ThreadPoolExecutor(_THREADS) as threads,
        tqdm(
            total=sum(file.shard.bytes for file in shards),
            desc="checking shards",
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=not (with_bar and shards and sys.stderr.isatty()),
        ) as bar,
    ):
        for file, intact in zip(shards, threads.map(ShardFile.is_intact, shards), strict=True):
            bar.update(file.shard.bytes)
            found.append(intact)
    return found
