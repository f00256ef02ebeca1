"""All tars of a build -> staged shards: which tasks are left, until all are done. Knows no TFDS.

Two things are not known before other tars were read: which of a tar's images an earlier tar has as
well, and how many of its images are taken if the split is limited. So all tars are converted at
once as if they shared no image and each were within the limit; the few for which that proves wrong
are converted again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from absl import logging

from sa1b_tfds.building import estimates
from sa1b_tfds.building.conversion_task import ConversionTask, ShardSettings
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.building.wanted_ids import keep_wanted
from sa1b_tfds.core.problems import OnError
from sa1b_tfds.core.running.pool import first_failure
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.id_set import IdSet
from sa1b_tfds.examples.image_ids import repeated
from sa1b_tfds.tars.archive import Archive, TarArchive
from sa1b_tfds.tars.forms import TAR_BYTES
from sa1b_tfds.tars.index import count_pairs, kept_count

# Runs tasks as far as it can; returns the error of each that failed, by the tar's name.
Engine = Callable[[Sequence[ConversionTask]], Mapping[str, Exception]]

_DEPENDS_ON_OTHER_TARS = ("limit", "excluded")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """All tars that a build converts, and how.

    archives: in the order in which their shards are to be read.
    num_shards: of all tars together. None cuts each tar by size.
    max_examples: take only the first ones in that order. None takes all.
    md5: take the MD5 of every tar, and compare it with `known_md5` by file name.
    kept: names of tars in data that is extended, see `ConversionTask.is_kept`.
    image_ids: take only the images with these ids. None takes all.
    also: tasks of another conversion, by the names of their tars, that are done in the same pass.
    """

    archives: Sequence[Archive]
    staging: Staging
    settings: ShardSettings
    on_error: OnError = "raise"
    num_shards: int | None = None
    max_examples: int | None = None
    md5: bool = False
    known_md5: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kept: Container[str] = ()
    image_ids: IdSet | None = None
    also: Mapping[str, ConversionTask] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_shards is not None and self.num_shards < len(self.archives):
            raise ValueError(
                f"num_shards={self.num_shards} cannot apply to"
                f" {counted(len(self.archives), 'tar')}: each has shards of its own. Ask for at"
                " least one a tar, or set max_shard_size instead."
            )
        folders = [a.name for a in self.archives if not isinstance(a, TarArchive)]
        if self.md5 and folders:
            raise ValueError(f"md5 needs tars, and {folders[0]!r} is a folder of extracted files.")
        if self.image_ids is not None and self.max_examples is not None:
            raise ValueError(
                "max_examples_per_split cannot apply with image_ids: shorten the list of ids."
            )

    def run(self, engine: Engine) -> list[FinishedTar]:
        """Has all tars converted that are not staged yet.

        Returns:
          The finished tars, in the order of their shards.

        Raises:
          Exception: the first failure in the order of the archives. The others are logged, and all
            tars that could be converted are staged.
        """
        staged = self._begin()
        while True:
            tasks = self.tasks(staged)
            missing = [task for task in tasks if not _is_done(task, staged)]
            if not missing:
                return [staged[task.archive.name] for task in tasks]
            for task in missing:
                if task.archive.name in staged:
                    logging.info("%s is converted again: %s", task.archive.name, _why(task))
            failures = engine(missing)
            if failures:
                raise first_failure(failures, missing)
            staged.update(self._read(missing))

    def tasks_to_do(self) -> dict[str, ConversionTask]:
        """The tasks that another conversion can do in its pass, by the names of their tars."""
        staged = self._begin()
        tasks = self.tasks(staged)
        return {task.archive.name: task for task in tasks if not _is_done(task, staged)}

    def _begin(self) -> dict[str, FinishedTar]:
        """Makes the staging folder ready for tasks; returns the staged tars that can be used."""
        self.staging.make_ready()
        self.staging.want(archive.name for archive in self.archives)
        if self.image_ids is not None:
            keep_wanted(self.staging, self.image_ids)
        return self.staged()

    def staged(self) -> dict[str, FinishedTar]:
        """The staged tars that can be used, by name; logs why the others are converted again."""
        usable = {}
        for name, finished in self._read(self._all_tasks.values()).items():
            if reason := self._reason_to_redo(finished):
                logging.warning("%s is converted again: %s.", name, reason)
            else:
                usable[name] = finished
        return usable

    def is_up_to_date(self, finished: FinishedTar) -> bool:
        """Whether a staged tar can be used, unless another tar turns out to share its images."""
        return finished.archive not in self._all_tasks or self._reason_to_redo(finished) is None

    def _reason_to_redo(self, finished: FinishedTar) -> str | None:
        task = self._all_tasks[finished.archive]
        return task.reason_to_redo(finished, ignoring=_DEPENDS_ON_OTHER_TARS)

    def tasks(self, staged: Mapping[str, FinishedTar]) -> list[ConversionTask]:
        """One task for each tar. The tars in `staged` say what each task has to leave out."""
        there = [staged[a.name] for a in self.archives if a.name in staged]
        found = repeated({tar.archive: tar.image_ids for tar in there})
        remaining = self.max_examples
        tasks = []
        for task in self._all_tasks.values():
            name = task.archive.name
            task = dataclasses.replace(task, excluded=found.get(name, ()))
            if remaining is not None:
                if remaining == 0:
                    break
                pairs = staged[name].pairs if name in staged else _count(task.archive)
                if pairs is None:  # so it is not known how many are left for the tars after it
                    tasks.append(dataclasses.replace(task, limit=remaining))
                    break
                if pairs > remaining:
                    task = dataclasses.replace(task, limit=remaining)
                done = _is_done(task, staged)
                remaining -= staged[name].images if done else min(pairs, remaining)
            tasks.append(task)
        return tasks

    @functools.cached_property
    def _all_tasks(self) -> dict[str, ConversionTask]:
        tasks = {}
        settings, share = self.settings, 1.0
        if self.image_ids is not None:
            settings = dataclasses.replace(settings, image_ids=self.image_ids.fingerprint)
            share = estimates.share_of(len(self.image_ids), sum(map(_bytes_of, self.archives)))
        for i, archive in enumerate(self.archives):
            num_shards = None
            if self.num_shards is not None:
                few, more = divmod(self.num_shards, len(self.archives))
                num_shards = few + (i < more)
            tasks[archive.name] = ConversionTask(
                archive=archive,
                staging=self.staging,
                settings=settings,
                on_error=self.on_error,
                num_shards=num_shards,
                is_kept=archive.name in self.kept,
                md5=self.md5,
                expected_md5=self.known_md5.get(archive.name.rpartition("/")[2]),
                share=share,
                also=tuple(filter(None, [self.also.get(archive.name)])),
            )
        return tasks

    def _read(self, tasks: Iterable[ConversionTask]) -> dict[str, FinishedTar]:
        read = {task.archive.name: self.staging.finished(task.archive.name) for task in tasks}
        return {name: finished for name, finished in read.items() if finished is not None}


def _bytes_of(archive: Archive) -> int:
    return (archive.identity() or {"bytes": TAR_BYTES})["bytes"]


def _count(archive: Archive) -> int | None:
    """The number of pairs; None if all of a compressed tar would have to be inflated for it."""
    return kept_count(archive) if archive.is_packed() else count_pairs(archive)


def _is_done(task: ConversionTask, staged: Mapping[str, FinishedTar]) -> bool:
    finished = staged.get(task.name)
    return finished is not None and task.reason_to_redo(finished) is None


def _why(task: ConversionTask) -> str:
    if task.excluded:
        return f"{len(task.excluded)} of its images are in an earlier tar."
    return "the limit over all tars takes another number of its images."
