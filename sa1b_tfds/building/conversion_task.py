"""The one task of a build: a tar -> its shards, all of them or none. No TensorFlow here.

A task may have others with it, of the same tar for another config: the tar is inflated once.

A process pool (`core/running/`) and Beam (`beam_engine.py`) run the same `convert`. What it writes
depends on the tar and the task's settings alone: not on the worker, the engine, the order of files
in the tar, whether it is compressed, or what was interrupted before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL
from etils import epath

from sa1b_tfds.building import estimates
from sa1b_tfds.building.shard_order import MAX_SHARD_SIZE, cut, shuffled
from sa1b_tfds.building.shard_writer import ShardWriter, shard_writer
from sa1b_tfds.building.source_record import is_from, md5_taken, recorded_md5, report_mismatch
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.building.task_progress import TaskProgress
from sa1b_tfds.building.wanted_ids import may_be_wanted, read_wanted
from sa1b_tfds.core import files
from sa1b_tfds.core.problems import OnError, Problems
from sa1b_tfds.core.running.workers import OnProgress
from sa1b_tfds.examples import image_ids, jpeg, record_files, records
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.id_set import IdSet
from sa1b_tfds.examples.image_ids import Excluded, ImageIds
from sa1b_tfds.examples.parts import examples_of
from sa1b_tfds.tars.archive import Archive, PairReader, TarArchive
from sa1b_tfds.tars.forms import TAR_BYTES
from sa1b_tfds.tars.pairs import Entry
from sa1b_tfds.tars.scratch import readable_in_any_order

# Raised whenever the same settings would give other bytes: what an older version staged is redone.
_LAYOUT = 1
# What must be the same even for shards that are kept: the first two are so for all tars of the
# data, the others say which of the tar's images are in it.
_NEVER_KEPT = ("file_format", "long_side", "image_ids", "limit", "excluded")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """What the shards of every tar of a build depend on.

    file_format: 'tfrecord' or 'array_record'.
    long_side: shrink images to this many pixels; None keeps the JPEG bytes.
    max_shard_size: bytes that no shard exceeds, unless one record does.
    image_ids: the fingerprint of the ids of the images to take, which are in the staging folder.
      None takes all.
    """

    file_format: str = "tfrecord"
    long_side: int | None = None
    max_shard_size: int = MAX_SHARD_SIZE
    image_ids: str | None = None

    def __post_init__(self) -> None:
        if self.file_format not in record_files.FORMATS:
            raise ValueError(
                f"file_format {self.file_format!r} cannot be written here; choose one of"
                f" {sorted(record_files.FORMATS)}."
            )
        if self.max_shard_size < 1:
            raise ValueError(f"max_shard_size must be positive, got {self.max_shard_size}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionTask:
    """One tar to convert.

    num_shards: exactly so many, whatever their size. None cuts by size.
    limit: take this number of examples, the first ones. None takes all.
    excluded: (image id, tar) of images to leave out, as an earlier tar has them.
    is_kept: its shards are in data that is extended, and stay however they were cut and coded.
    md5: take the tar's MD5. Without this it is known only if a download has recorded it.
    expected_md5: what the MD5 has to be. None does not compare it.
    share: about which share of its bytes is taken, for the room on the disk.
    also: tasks of other builds, of the same tar, that are done with this one.
    """

    archive: Archive
    staging: Staging
    settings: ShardSettings
    on_error: OnError = "raise"
    num_shards: int | None = None
    limit: int | None = None
    excluded: Excluded = ()
    is_kept: bool = False
    md5: bool = False
    expected_md5: str | None = None
    share: float = 1.0
    also: tuple[ConversionTask, ...] = ()

    @property
    def name(self) -> str:
        return self.archive.name

    @property
    def folder(self) -> epath.Path:
        return self.staging.folder

    def source_bytes(self) -> int:
        archive = self.archive
        if isinstance(archive, TarArchive) and not files.is_local(archive.path):
            return _bytes_in_store(archive.path)
        return (archive.identity() or {"bytes": 0})["bytes"]

    def expected_bytes(self) -> int:
        return self.source_bytes() or TAR_BYTES

    def written(self, read: int) -> int:
        size = estimates.shard_bytes(self.archive, read, self.settings.long_side)
        return int(self.share * size) + sum(task.written(read) for task in self.also)

    def scratch_bytes(self) -> int:
        return estimates.scratch_bytes(self.archive, self.source_bytes())

    def run(self, on_progress: OnProgress) -> None:
        convert(self, on_progress)

    def fingerprint(self) -> dict[str, Any]:
        """What the shards depend on, besides the tar. It stands in the receipt."""
        how = {"layout": _LAYOUT, **dataclasses.asdict(self.settings)}
        if self.settings.long_side is not None:
            how |= {"quality": jpeg.QUALITY, "scaling_margin": jpeg.DCT_MARGIN}
            how |= {"pillow": PIL.__version__}
        excluded = image_ids.fingerprint(self.excluded)
        return {**how, "num_shards": self.num_shards, "limit": self.limit, "excluded": excluded}

    def reason_to_redo(self, finished: FinishedTar, ignoring: Container[str] = ()) -> str | None:
        """Why the shards of a finished tar are not what this task would write; None if they are.

        Args:
          finished: the tar and its shards, staged or in the data.
          ignoring: names of settings that are not compared.
        """
        fingerprint = self.fingerprint()
        if self.limit is not None and self.limit >= finished.pairs:
            fingerprint["limit"] = None  # all are taken, as without a limit
        for name in sorted(fingerprint.keys() | finished.settings.keys()):
            if name in ignoring or (self.is_kept and name not in _NEVER_KEPT):
                continue
            was, wanted = finished.settings.get(name), fingerprint.get(name)
            if was != wanted:
                return f"its {name} was {was}, now it is {wanted}"
        source = self.archive.identity()
        if source is not None and not is_from(self.archive, finished.source):
            return f"the tar was {_described(finished.source)}, now it is {_described(source)}"
        if self.md5 and not self.is_kept and source is not None and finished.md5 is None:
            return "its MD5 was not taken"
        if finished.problems and self.on_error == "raise" and not self.is_kept:
            return f"it was built with on_error='skip': {finished.problems[0]}"
        return None


@functools.cache
def _bytes_in_store(tar: epath.Path) -> int:
    """The bytes of a tar in an object store, asked for once: the bar wants them at each change."""
    return files.stat_of(tar).bytes


def _described(source: Mapping[str, int]) -> str:
    modified = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(source["modified"]))
    return f"{source['bytes']:,} bytes of {modified}"


def unique_examples(
    archive: PairReader,
    entries: Iterable[Entry],
    *,
    long_side: int | None,
    ids: ImageIds,
    problems: Problems,
    wanted: IdSet | None = None,
) -> Iterator[Example]:
    """Yields the example of each entry; reports what is no example, and image ids met before.

    wanted: the ids of the images to yield. None yields all.
    """
    for json_name, example in examples_of(archive, entries, problems, long_side):
        if wanted is not None and example.image_id not in wanted:
            continue
        if earlier := ids.add(example.image_id, archive.name):
            reason = f"image id {example.image_id} was in {earlier} before"
            problems.report(archive.name, json_name, reason)
            continue
        yield example


def convert(
    task: ConversionTask, on_progress: OnProgress = lambda images, size: None
) -> FinishedTar:
    """Writes the shards of a tar into the staging folder, and then its receipt.

    The tasks in `also` are done first, each for itself: where this one is finished, they are.

    Raises:
      BadInput: what is wrong in the tar, if the task's on_error is 'raise'.
      OSError: if the tar cannot be read or the shards cannot be written.
    """
    began = time.monotonic()
    source = task.archive.identity()
    if source is None:
        raise _tar_is_gone(task)
    problems = Problems(task.on_error)
    progress = TaskProgress(
        size=source["bytes"],
        is_packed=task.archive.is_packed(),
        tasks=1 + len(task.also),
        on_progress=on_progress,
    )
    with (
        files.full_disk_named(f"in {task.folder}, while writing {task.archive.name}"),
        _md5(task, problems) as md5,
        readable_in_any_order(task.archive, task.folder, problems, progress.inflated) as (
            reader,
            entries,
        ),
    ):
        for one in (*task.also, task):
            if one.limit is not None and one.limit >= len(entries):
                one = dataclasses.replace(one, limit=None)
            with shard_writer(one.staging, one.name, one.settings.file_format) as writer:
                images = _write(one, reader, entries, writer, progress)
                if task.archive.identity() != source:
                    raise OSError(f"{task.archive.name} changed while it was read: build again.")
                finished = FinishedTar(
                    md5=md5(),
                    archive=task.archive.name,
                    settings=one.fingerprint(),
                    source=source,
                    pairs=len(entries),
                    image_ids=np.array([*images.ids, *(i for i, _ in one.excluded)], np.int64),
                    problems=[*problems.found, *images.problems.found],
                    shards=writer.shards,
                    seconds=round(time.monotonic() - began, 3),
                )
                one.staging.finish(finished, writer.drafts)
    return finished


def _write(
    task: ConversionTask,
    reader: PairReader,
    entries: Sequence[Entry],
    writer: ShardWriter,
    progress: TaskProgress,
) -> _Examples:
    """Writes the drafts of a task's shards; returns what was read for them."""
    wanted = read_wanted(task.staging, task.settings.image_ids)
    entries = shuffled(may_be_wanted(entries, wanted))
    on_progress = progress.of_next(sum(entry.size for entry in entries))
    images = _Examples(task, reader, wanted, on_progress)
    parts = cut(
        entries,
        limit=task.limit,
        num_shards=task.num_shards,
        max_shard_size=task.settings.max_shard_size,
    )
    for part in parts:
        writer.write(map(records.serialise, images.of(part)))
    return images


def _tar_is_gone(task: ConversionTask) -> FileNotFoundError:
    name, receipt = task.name, task.staging.receipt
    gone = f"{name} is not there any more"
    if task.excluded:
        image_id, other = task.excluded[0]
        return FileNotFoundError(
            f"image id {image_id} is in {name} and in {other}, so {name} has to be converted again"
            f" without it. But {gone}: put it back, or remove {other} and {receipt(other)}."
        )
    if not receipt(name).exists():
        return FileNotFoundError(f"{gone}: put it back, or build again without it.")
    return FileNotFoundError(
        f"{gone}, and its finished shards are damaged or were built with other options: put it"
        f" back, build with the options as they were, or remove {receipt(name)} to build without"
        " it."
    )


@contextlib.contextmanager
def _md5(task: ConversionTask, problems: Problems) -> Iterator[Callable[[], str | None]]:
    """Gives the body a function that returns the tar's MD5, and may have to wait for it."""
    known = recorded_md5(task.archive)
    if known or not (task.md5 and isinstance(task.archive, TarArchive)):
        yield lambda: known
        return
    with md5_taken(task.archive) as taken:

        @functools.cache
        def checked() -> str:
            digest = taken()
            if task.expected_md5 and task.archive.is_packed():  # the table has no MD5 of plain tars
                report_mismatch(task.archive, digest, task.expected_md5, problems)
            return digest.hexdigest()

        yield checked


class _Examples:
    """Reads a task's examples part by part: up to its limit, and none that is excluded."""

    def __init__(
        self,
        task: ConversionTask,
        reader: PairReader,
        wanted: IdSet | None,
        on_progress: OnProgress,
    ):
        self.ids: list[int] = []
        self.problems = Problems(task.on_error)
        self._task = task
        self._reader = reader
        self._wanted = wanted
        self._on_progress = on_progress
        self._read = 0
        self._seen = ImageIds(task.excluded)

    def of(self, entries: Sequence[Entry]) -> Iterator[Example]:
        if len(self.ids) == self._task.limit:
            return
        for example in unique_examples(
            self._reader,
            self._counted(entries),
            long_side=self._task.settings.long_side,
            ids=self._seen,
            problems=self.problems,
            wanted=self._wanted,
        ):
            self.ids.append(example.image_id)
            yield example
            self._on_progress(len(self.ids), self._read)
            if len(self.ids) == self._task.limit:
                return

    def _counted(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        for entry in entries:
            yield entry
            self._read += entry.size
