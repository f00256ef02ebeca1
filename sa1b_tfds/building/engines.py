"""Who runs the tasks of a build: worker processes on this machine. Beam is in `beam_engine.py`."""

from __future__ import annotations

import dataclasses
import errno
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from etils import epath

from sa1b_tfds import files
from sa1b_tfds.archive import Archive
from sa1b_tfds.building import workers
from sa1b_tfds.building.shards import Task
from sa1b_tfds.building.size import expected_bytes, gigabytes
from sa1b_tfds.building.workers import Ended, Event, Running


class NotEnoughSpace(OSError):
    """The disk is full, or what is to be written does not fit."""

    def __init__(self, message: str):
        super().__init__(errno.ENOSPC, message)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.strerror or "",)


class Reporter(Protocol):
    """Hears how a build goes, in the thread that called it."""

    def planned(self, tasks: Sequence[Task]) -> None:
        """These tars are converted now."""

    def hear(self, event: Event) -> None:
        """Of one of them."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessPool:
    """Converts tars in processes on this machine, and watches the disk while it does.

    num_workers: tars at a time.
    fetch: brings a tar that is not there; release: called when it is finished. Both are called in
      several threads.
    """

    num_workers: int
    reporter: Reporter
    fetch: Callable[[Archive], None] | None = None
    release: Callable[[Archive], None] | None = None

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be positive, got {self.num_workers}.")

    def __call__(self, tasks: Sequence[Task]) -> dict[str, Exception]:
        failures: dict[str, Exception] = {}
        space = _Space(tasks[0].staging.folder)
        if self.fetch is None:
            space.check(tasks)
        self.reporter.planned(tasks)

        def on_event(event: Event) -> None:
            space.hear(event)
            self.reporter.hear(event)
            if isinstance(event, Ended) and event.error is not None:
                failures[event.task.archive.name] = event.error

        def before(task: Task) -> None:
            space.refuse_if_full(task)
            if self.fetch is not None:
                self.fetch(task.archive)
            space.begin(task)

        def after(task: Task) -> None:
            if self.release is not None:
                self.release(task.archive)

        try:
            workers.run(
                tasks,
                self.num_workers,
                on_event=on_event,
                before=before,
                after=after,
            )
        finally:
            self.reporter.close()
        return failures


class _Space:
    """Whether what is still to be written fits. Used by several threads."""

    def __init__(self, folder: epath.Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._to_come: dict[str, int] = {}  # of the running tars
        self._full = False

    def check(self, tasks: Sequence[Task]) -> None:
        needed = sum(_expected(task) for task in tasks)
        free = files.free_bytes(self._folder)
        if free is not None and needed > free:
            raise NotEnoughSpace(
                f"The shards of {len(tasks)} tars need up to {gigabytes(needed)} in {self._folder},"
                f" where {gigabytes(free)} are free. Nothing was written; make room, or build fewer"
                " tars."
            )

    def refuse_if_full(self, task: Task) -> None:
        if self._full:
            raise NotEnoughSpace(
                f"{task.archive.name} was not begun: the disk is full. Make room in"
                f" {self._folder.parent} and build again; the tars that were finished are kept."
            )

    def begin(self, task: Task) -> None:
        with self._lock:
            needed = _expected(task) + sum(self._to_come.values())
            free = files.free_bytes(self._folder)
            if free is not None and needed > free:
                self._full = True
                self.refuse_if_full(task)
            self._to_come[task.archive.name] = _expected(task)

    def hear(self, event: Event) -> None:
        name = event.task.archive.name
        with self._lock:
            if isinstance(event, Running) and name in self._to_come:
                done = expected_bytes(event.bytes, event.task.settings.long_side)
                self._to_come[name] = max(0, _expected(event.task) - done)
            elif isinstance(event, Ended):
                self._to_come.pop(name, None)
                if isinstance(event.error, OSError) and event.error.errno in files.DISK_FULL:
                    self._full = True


def _expected(task: Task) -> int:
    identity = task.archive.identity() or {"bytes": 0}
    return expected_bytes(identity["bytes"], task.settings.long_side)
