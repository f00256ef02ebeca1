"""The one task of a build: a tar -> its shards, all of them or none. No TensorFlow here.

A process pool (`core/running/`) and Beam (`beam_engine.py`) run the same `convert`. What it writes
depends on the tar and the task's settings alone: not on the worker, the engine, the order of files
in the tar, whether it is compressed, or what was interrupted before.

**Order.** Examples lie in the order of `shuffled`: sorted by a keyed hash (BLAKE2b) of the image's
file name. It is a fixed pseudo-random permutation that is the same for every version of Python and
NumPy, so that reading the shards one after the other is a fair sample of each tar.

**Size.** A tar is cut into the fewest shards of about equal size that all stay below
`max_shard_size`. The default is TFDS's own, 1 GiB: benchmarks/shard_size.py finds no size faster to
read, and a smaller one would give SA-1B tens of thousands of files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL
from etils import epath

from sa1b_tfds.building.shard_files import Shard
from sa1b_tfds.building.size import expected_bytes, scratch_bytes
from sa1b_tfds.building.source_record import is_from, md5_taken, recorded_md5, report_mismatch
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.core import files
from sa1b_tfds.core.problems import OnError, Problems
from sa1b_tfds.core.running.workers import Progress
from sa1b_tfds.examples import image_ids, jpeg, record_files, records
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.image_ids import Excluded, ImageIds
from sa1b_tfds.examples.parts import examples_of
from sa1b_tfds.tars.archive import Archive, PairReader, TarArchive
from sa1b_tfds.tars.forms import TAR_BYTES
from sa1b_tfds.tars.pairs import Entry
from sa1b_tfds.tars.scratch import readable_in_any_order

MAX_SHARD_SIZE = 2**30
# Raised whenever the same settings would give other bytes: what an older version staged is redone.
_LAYOUT = 1
_ORDER_KEY = b"sa1b_tfds"
# What inflating takes of the time of a compressed tar (benchmarks/build.py), for the progress.
_INFLATING = 0.5
# Of a task's settings, those that are the same for all tars of some data, and what is in it of one.
_ALIKE = ("file_format", "long_side", "limit", "excluded")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the shards of every tar of a build depend on.

    file_format: 'tfrecord' or 'array_record'.
    long_side: shrink images to this many pixels; None keeps the JPEG bytes.
    max_shard_size: bytes that no shard exceeds, unless one record does.
    """

    file_format: str = "tfrecord"
    long_side: int | None = None
    max_shard_size: int = MAX_SHARD_SIZE

    def __post_init__(self) -> None:
        if self.file_format not in record_files.FORMATS:
            raise ValueError(
                f"file_format {self.file_format!r} cannot be written here; choose one of"
                f" {sorted(record_files.FORMATS)}."
            )
        if self.max_shard_size < 1:
            raise ValueError(f"max_shard_size must be positive, got {self.max_shard_size}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One tar to convert.

    num_shards: exactly so many, whatever their size; None cuts by size.
    limit: take the first ones up to this number of examples; None takes all.
    excluded: (image id, tar) of images that an earlier tar has.
    is_kept: its shards are in data that is extended, and stay however they were cut and coded.
    md5: take the tar's MD5; else it is told only where a download has recorded it.
    expected_md5: what it has to be, if `md5`; None if that is not known.
    """

    archive: Archive
    staging: Staging
    settings: Settings
    on_error: OnError = "raise"
    num_shards: int | None = None
    limit: int | None = None
    excluded: Excluded = ()
    is_kept: bool = False
    md5: bool = False
    expected_md5: str | None = None

    @property
    def name(self) -> str:
        return self.archive.name

    @property
    def folder(self) -> epath.Path:
        return self.staging.folder

    def source_bytes(self) -> int:
        return (self.archive.identity() or {"bytes": 0})["bytes"]

    def expected_bytes(self) -> int:
        return self.source_bytes() or TAR_BYTES

    def written(self, read: int) -> int:
        return expected_bytes(self.archive, read, self.settings.long_side)

    def scratch_bytes(self) -> int:
        return scratch_bytes(self.archive, self.source_bytes())

    def run(self, on_progress: Progress) -> None:
        convert(self, on_progress)

    def fingerprint(self) -> dict[str, Any]:
        """What the shards depend on, besides the tar; in a sidecar, to know them again."""
        how = {"layout": _LAYOUT, **dataclasses.asdict(self.settings)}
        if self.settings.long_side is not None:
            how |= {"quality": jpeg.QUALITY, "scaling_margin": jpeg.DCT_MARGIN}
            how |= {"pillow": PIL.__version__}
        excluded = image_ids.fingerprint(self.excluded)
        return {**how, "num_shards": self.num_shards, "limit": self.limit, "excluded": excluded}

    def misfit(self, finished: FinishedTar, besides: Container[str] = ()) -> str | None:
        """Why staged shards are not what this task would write; None if they are.

        The settings in `besides` are not looked at.
        """
        fingerprint = self.fingerprint()
        if self.limit is not None and self.limit >= finished.pairs:
            fingerprint["limit"] = None  # it takes all, as if there were none
        for name in sorted(fingerprint.keys() | finished.settings.keys()):
            if name in besides or (self.is_kept and name not in _ALIKE):
                continue
            was, wanted = finished.settings.get(name), fingerprint.get(name)
            if was != wanted:
                return f"its {name} was {was}, now it is {wanted}"
        source = self.archive.identity()
        if source is not None and not is_from(self.archive, finished.source):
            return f"the tar was {_told(finished.source)}, now it is {_told(source)}"
        if self.md5 and not self.is_kept and source is not None and finished.md5 is None:
            return "its MD5 was not taken"
        if finished.problems and self.on_error == "raise" and not self.is_kept:
            return f"it was built with on_error='skip': {finished.problems[0]}"
        return None


def _told(source: Mapping[str, int]) -> str:
    modified = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(source["modified"]))
    return f"{source['bytes']:,} bytes of {modified}"


def shuffled(entries: Iterable[Entry]) -> list[Entry]:
    """The order of a tar's images in its shards: see the module."""
    return sorted(entries, key=_rank)


def unique_examples(
    archive: PairReader,
    entries: Iterable[Entry],
    *,
    long_side: int | None,
    ids: ImageIds,
    problems: Problems,
) -> Iterator[Example]:
    """Yields the example of each entry; reports those that are none, or whose id was before."""
    for json_name, example in examples_of(archive, entries, problems, long_side):
        if earlier := ids.add(example.image_id, archive.name):
            reason = f"image id {example.image_id} was in {earlier} before"
            problems.report(archive.name, json_name, reason)
            continue
        yield example


def convert(task: Task, on_progress: Progress = lambda images, size: None) -> FinishedTar:
    """Writes the shards of a tar into the staging folder, and then its sidecar.

    Raises:
      BadInput: what is wrong in the tar, if the task's on_error is 'raise'.
      OSError: if the tar cannot be read or the shards cannot be written.
    """
    began = time.monotonic()
    source = task.archive.identity()
    if source is None:
        if task.excluded:
            image_id, other = task.excluded[0]
            raise FileNotFoundError(
                f"image id {image_id} of {task.archive.name} is in {other} as well, and"
                f" {task.archive.name}, which would have to be converted again without it, is not"
                f" there any more: put it back, or remove {other} and"
                f" {task.staging.sidecar(other)}."
            )
        if not task.staging.sidecar(task.archive.name).exists():
            name = task.archive.name
            raise FileNotFoundError(
                f"{name} is not there any more: put it back, or build again without it."
            )
        raise FileNotFoundError(
            f"{task.archive.name} is not there any more, and what was finished of it does not fit"
            " or is damaged: put it back, build with the options as they were, or remove"
            f" {task.staging.sidecar(task.archive.name)} to go without it."
        )
    problems = Problems(task.on_error)
    folder = task.staging.folder
    share = _INFLATING if task.archive.is_packed() else 0.0  # of the progress

    def on_inflated(size: int) -> None:
        on_progress(0, int(share * size))

    with (
        _drafts(task) as drafts,
        _md5(task, problems) as md5,
        readable_in_any_order(task.archive, folder, problems, on_inflated) as (reader, entries),
    ):
        if task.limit is not None and task.limit >= len(entries):
            task = dataclasses.replace(task, limit=None)
        entries = shuffled(entries)
        before = share * source["bytes"]
        scale = (source["bytes"] - before) / max(1, sum(entry.size for entry in entries))
        images = _Examples(
            task, reader, problems, lambda n, read: on_progress(n, int(before + scale * read))
        )
        for part in cut(entries, task):
            examples = images.of(part)
            if (first := next(examples, None)) is not None:
                drafts.write(first, examples)
        if task.archive.identity() != source:
            raise OSError(f"{task.archive.name} changed while it was read: build again.")
        finished = FinishedTar(
            md5=md5(),
            archive=task.archive.name,
            settings=task.fingerprint(),
            source=source,
            pairs=len(entries),
            image_ids=np.array([*images.ids, *(i for i, _ in task.excluded)], np.int64),
            problems=problems.found,
            shards=drafts.shards,
            seconds=round(time.monotonic() - began, 3),
        )
        task.staging.finish(finished, drafts.paths)
    return finished


@contextlib.contextmanager
def _md5(task: Task, problems: Problems) -> Iterator[Callable[[], str | None]]:
    """Gives the body what tells the tar's MD5, once it is wanted; it may have to wait for it."""
    known = recorded_md5(task.archive)
    if known or not (task.md5 and isinstance(task.archive, TarArchive)):
        yield lambda: known
        return
    with md5_taken(task.archive) as taken:

        def checked() -> str:
            digest = taken()
            if task.expected_md5 and task.archive.is_packed():  # of a plain tar none is known
                report_mismatch(task.archive, digest, task.expected_md5, problems)
            return digest.hexdigest()

        yield checked


def cut(entries: Sequence[Entry], task: Task) -> list[Sequence[Entry]]:
    """Divides entries into one part a shard; what comes after the limit is in the last part."""
    counted = entries[: task.limit]
    if not counted:
        return []
    ends = np.cumsum([entry.size for entry in counted])
    if task.num_shards is not None:
        number = min(task.num_shards, len(counted))
        first = [round(len(counted) * i / number) for i in range(number)]
    else:
        room = task.settings.max_shard_size - max(entry.size for entry in counted)
        number = min(-(-int(ends[-1]) // max(room, 1)), len(counted))
        shard_of = (ends - ends[0]) * number // ends[-1]
        first = np.unique(shard_of, return_index=True)[1].tolist()
    stops = [*first[1:], len(entries)]
    return [entries[start:stop] for start, stop in zip(first, stops, strict=True)]


class _Examples:
    """Reads a task's examples part by part: up to its limit, and none that is excluded."""

    def __init__(self, task: Task, reader: PairReader, problems: Problems, on_progress: Progress):
        self.ids: list[int] = []
        self._task = task
        self._reader = reader
        self._problems = problems
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
            problems=self._problems,
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


class _Drafts:
    """The shards of a task while they are written."""

    def __init__(self, task: Task):
        self.paths: list[epath.Path] = []
        self.shards: list[Shard] = []
        self._task = task

    def write(self, first: Example, others: Iterable[Example]) -> None:
        path = self._task.staging.draft(self._task.archive.name, len(self.paths))
        self.paths.append(path)
        writer = record_files.open_writer(path, self._task.settings.file_format)
        sent = files.SentMeanwhile(path)
        examples = 0
        with contextlib.closing(writer):
            for example in itertools.chain([first], others):
                record = records.serialise(example)
                writer.write(record)
                sent.written(len(record))
                examples += 1
        sent.finish()
        size = files.stat_of(path).bytes
        self.shards.append(Shard(examples=examples, bytes=size, crc32c=writer.crc32c))

    def remove(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _drafts(task: Task) -> Iterator[_Drafts]:
    drafts = _Drafts(task)
    try:
        yield drafts
    except OSError as e:
        if e.errno in files.DISK_FULL:
            text = f"{e.strerror} in {task.staging.folder}, while writing {task.archive.name}"
            raise OSError(e.errno, text) from e
        raise
    finally:
        drafts.remove()


def _rank(entry: Entry) -> bytes:
    name = entry.jpeg.name.rpartition("/")[2]
    return hashlib.blake2b(name.encode(errors="surrogateescape"), key=_ORDER_KEY).digest()
