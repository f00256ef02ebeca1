"""The rows of one tar -> its shards, all of them or none; and which tars are left to write.

Several processes may write different tars of one sidecar at the same time. They hold its folder
together, and each holds the tar that it writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from tqdm import tqdm

from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.building.shard_order import MAX_SHARD_SIZE
from sa1b_tfds.building.shard_writer import shard_writer
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.core import files
from sa1b_tfds.core.lock import lock_folder
from sa1b_tfds.core.problems import BadInput, OnError, Problems
from sa1b_tfds.examples.example import Example
from sa1b_tfds.sidecars.columns import NAME, Columns, columns_in
from sa1b_tfds.sidecars.source import SourceTar, sidecar_folder

VERSION = "1.0.0"
FILE_FORMAT = "tfrecord"
# Raised whenever the same rows would give other bytes.
_LAYOUT = 1
_COLUMNS = "columns"


class ImageRow(NamedTuple):
    """The values of one image by column; None if there are none.

    mask_count is None where nobody has looked: no value is of a mask then.
    """

    image_id: int
    mask_count: int | None
    values: Mapping[str, Any] | None


# A tar and its images -> a row for each of them, in the same order.
MakeRows = Callable[[SourceTar, Iterator[Example]], Iterator[ImageRow]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SidecarWriter:
    """Writes the tars of a sidecar that are not written yet.

    out: the sidecar's folder.
    columns: of the sidecar.
    on_error: what happens to an image that cannot be read, or has no row.
    max_shard_size: bytes that no shard exceeds, unless one row does.
    """

    out: epath.Path
    columns: Columns
    on_error: OnError = "raise"
    max_shard_size: int = MAX_SHARD_SIZE

    def __post_init__(self) -> None:
        if not NAME.match(self.out.name):
            raise ValueError(
                f"{self.out} cannot be a sidecar's folder: its last part names the dataset, so it"
                " has lower-case letters, digits and _ only."
            )

    @property
    def folder(self) -> Folder:
        return sidecar_folder(self.out / VERSION)

    def write(self, tars: Sequence[SourceTar], make_rows: MakeRows) -> list[BadInput]:
        """Writes the tars that have no rows yet, one after the other.

        Returns:
          What has no row in these tars, if on_error is 'skip'.

        Raises:
          BadInput: naming the first image without a row, if on_error is 'raise'.
          FolderInUse: if another process joins the sidecar, or writes the same tar.
          ValueError: if the sidecar has other columns.
        """
        self.folder.put_back_if_free()
        found: list[BadInput] = []
        with lock_folder(self.out, shared=True):
            self.folder.staging.folder.mkdir(parents=True, exist_ok=True)
            there = written_tars(self.folder, tars)
            for finished in there.values():
                self._check_columns(finished)
            save_columns(self.folder, self.columns)
            for tar in tars:
                if tar.name not in there:
                    there[tar.name] = self._write_tar(tar, make_rows)
                found += there[tar.name].problems
        return found

    def _check_columns(self, finished: FinishedTar) -> None:
        if (was := finished.settings["columns"]) != self._settings()["columns"]:
            raise ValueError(
                f"{self.out} has other columns than these: {finished.archive} was written with"
                f" {was}. Take another folder, or remove this one."
            )

    def _settings(self) -> dict[str, Any]:
        columns = self.columns.described()
        return {"layout": _LAYOUT, "file_format": FILE_FORMAT, "columns": columns}

    def _write_tar(self, tar: SourceTar, make_rows: MakeRows) -> FinishedTar:
        began = time.monotonic()
        staging = self.folder.staging
        problems = Problems(self.on_error)
        ids: list[int] = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock_folder(staging.lock(tar.name)))
            full = f"in {staging.folder}, while writing {tar.name}"
            stack.enter_context(files.full_disk_named(full))
            staging.remove_drafts(tar.name)
            source = tar.identity()
            number, examples = stack.enter_context(tar.open(staging.folder, problems))
            writer = stack.enter_context(shard_writer(staging, tar.name, FILE_FORMAT))
            rows = stack.enter_context(contextlib.closing(make_rows(tar, examples)))  # type: ignore[type-var]
            bar = stack.enter_context(_bar(tar.name, number))
            for part in self._shards(self._records(tar.name, rows, ids, problems, bar)):
                writer.write(part)
            if tar.identity() != source:
                raise OSError(f"{tar.name} changed while it was read: run this again.")
            finished = FinishedTar(
                archive=tar.name,
                settings=self._settings(),
                source=source,
                pairs=number,
                image_ids=np.array(ids, np.int64),
                problems=problems.found,
                shards=writer.shards,
                seconds=round(time.monotonic() - began, 3),
            )
            staging.finish(finished, writer.drafts)
        return finished

    def _records(
        self,
        archive: str,
        rows: Iterable[ImageRow],
        ids: list[int],
        problems: Problems,
        bar: tqdm,
    ) -> Iterator[bytes]:
        for row in rows:
            bar.update()
            try:
                if row.values is None:
                    raise ValueError("it has no row")
                record = self.columns.record(row.image_id, row.mask_count, row.values)
            except ValueError as e:
                problems.report(archive, f"image {row.image_id}", str(e))
            else:
                ids.append(row.image_id)
                yield record

    def _shards(self, records: Iterable[bytes]) -> Iterator[Iterator[bytes]]:
        """Cuts records into shards by their size."""
        shard = size = 0

        def shard_of(record: bytes) -> int:
            nonlocal shard, size
            if size and size + len(record) > self.max_shard_size:
                shard, size = shard + 1, 0
            size += len(record)
            return shard

        return (part for _, part in itertools.groupby(records, shard_of))


def save_columns(folder: Folder, columns: Columns) -> None:
    """Keeps the columns beside the staged tars, as their features.json and label names."""
    draft = folder.staging.folder / f"{_COLUMNS}.{uuid.uuid4().hex[:8]}"
    draft.mkdir()
    columns.features.save_config(draft)
    try:
        draft.rename(folder.staging.folder / _COLUMNS)
    except OSError:  # another process has saved the same
        draft.rmtree()


def saved_columns(folder: Folder) -> Columns:
    """The columns of the staged tars; if nothing is staged, those of the sidecar."""
    staged = folder.staging.folder / _COLUMNS
    return columns_in(staged if staged.exists() else folder.path)


def written_tars(folder: Folder, tars: Sequence[SourceTar]) -> dict[str, FinishedTar]:
    """The tars that have rows already, staged or in the sidecar; logs those that have changed."""
    prepared = folder.prepared()
    damaged = prepared.damaged()
    in_data = {tar.archive: tar for tar in prepared.tars if tar.archive not in damaged}
    there = {}
    for tar in tars:
        finished = folder.staging.finished(tar.name) or in_data.get(tar.name)
        if finished is None:
            continue
        if tar.is_source_of(finished):
            there[tar.name] = finished
        else:
            logging.warning("%s changed since its rows were written.", tar.name)
    return there


def _bar(name: str, total: int) -> tqdm:
    return tqdm(
        total=total, desc=name, unit="image", file=sys.stderr, disable=not sys.stderr.isatty()
    )
