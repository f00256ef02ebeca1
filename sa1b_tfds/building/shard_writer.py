"""Writes the shards of one tar, as drafts in the staging folder that get their names later."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from etils import epath

from sa1b_tfds.building.shard_files import Shard
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.core import files
from sa1b_tfds.examples import record_files


class ShardWriter:
    """Writes one shard a call.

    Attributes:
      drafts: the files, written and synced.
      shards: what is in each of them.
    """

    def __init__(self, staging: Staging, archive: str, file_format: str):
        self.drafts: list[epath.Path] = []
        self.shards: list[Shard] = []
        self._staging = staging
        self._archive = archive
        self._file_format = file_format

    def write(self, records: Iterable[bytes]) -> None:
        """Writes a shard of these records; none if there are none."""
        remaining = iter(records)
        first = next(remaining, None)
        if first is None:
            return
        path = self._staging.draft(self._archive, len(self.drafts))
        self.drafts.append(path)
        writer = record_files.open_writer(path, self._file_format)
        synced = files.BackgroundSync(path)
        lengths: list[int] = []
        with contextlib.closing(writer):
            for record in itertools.chain([first], remaining):
                writer.write(record)
                synced.written(len(record))
                lengths.append(len(record) + record_files.FRAME)
        synced.finish()
        self.shards.append(
            Shard(
                examples=len(lengths),
                bytes=files.stat_of(path).bytes,
                crc32c=writer.crc32c,
                lengths=_as_text(lengths) if self._file_format == "tfrecord" else None,
            )
        )

    def remove_drafts(self) -> None:
        """Removes the drafts that have not got their names.

        In an object store they stay: a shard without a receipt is no finished one, and the store
        may be what has failed.
        """
        for path in filter(files.is_local, self.drafts):
            path.unlink(missing_ok=True)


def _as_text(lengths: list[int]) -> str:
    return base64.b64encode(np.array(lengths, "<u4").tobytes()).decode()


@contextlib.contextmanager
def shard_writer(staging: Staging, archive: str, file_format: str) -> Iterator[ShardWriter]:
    """Gives the body a writer of an archive's shards, and removes the drafts if that fails."""
    staging.begin(archive)
    writer = ShardWriter(staging, archive, file_format)
    try:
        yield writer
    except BaseException:
        writer.remove_drafts()
        raise
