"""Runs tasks in worker processes on this machine, while the disk is watched.

A build's tasks may run on Beam instead (`building/beam_engine.py`).
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sa1b_tfds.core import files
from sa1b_tfds.core.progress import AnyReporter
from sa1b_tfds.core.running import workers
from sa1b_tfds.core.running.progress import TaskProgress
from sa1b_tfds.core.running.workers import Ended, Event, OnFetched, Running, Task
from sa1b_tfds.core.text import counted, first_few, format_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessPool:
    """Runs tasks in processes on this machine, and watches the disk while it does.

    num_workers: tasks at a time.
    reporter: receives how it goes.
    unit: what a task is called there.
    fetch: called before a task. Brings what it reads if that is missing, and reports how far it is.
    release: called when a task is finished. Both are called in several threads.
    makes_room: a finished task frees some of the disk, so the next one may wait for that.
    """

    num_workers: int
    reporter: AnyReporter
    unit: str = "tar"
    fetch: Callable[[Any, OnFetched], None] | None = None
    release: Callable[[Any], None] | None = None
    makes_room: bool = False

    def __call__(self, tasks: Sequence[Task]) -> dict[str, Exception]:
        failures: dict[str, Exception] = {}
        space = _Space(tasks, self.makes_room)
        if not self.makes_room:
            space.check(self.num_workers)
        progress = TaskProgress(self.reporter, tasks, self.unit)

        def on_event(event: Event) -> None:
            space.handle(event)
            progress.handle(event)
            if isinstance(event, Ended) and event.error is not None:
                failures[event.task.name] = event.error

        def before(task: Task, on_fetched: OnFetched) -> None:
            space.refuse_if_full(task)
            if self.fetch is not None:
                self.fetch(task, on_fetched)
            space.begin(task)

        def after(task: Task) -> None:
            if self.release is not None:
                self.release(task)

        try:
            workers.run(
                tasks,
                self.num_workers,
                on_event=on_event,
                before=before,
                after=after,
                on_ended=space.end,
            )
        finally:
            space.close()
            self.reporter.close()
        return failures


def first_failure(failures: Mapping[str, Exception], tasks: Sequence[Task]) -> Exception:
    """The first in the order of the tasks. Its `closing` names those that failed.

    A command ends with that: the reporter has given the reasons.
    """
    names = [task.name for task in tasks if task.name in failures]
    error = failures[names[0]]
    closing = f"{len(names)} of {len(tasks)} failed: {first_few(names)}"
    error.closing = closing  # type: ignore[attr-defined]
    return error


class _Space:
    """Whether what is still to be written fits. Used by several threads.

    makes_room: a task that ends frees some, if those before it have ended too. So what does not fit
      waits for it, and no task begins before an earlier one whose source is there.
    """

    def __init__(self, tasks: Sequence[Task], makes_room: bool):
        self._folder = tasks[0].folder
        self._makes_room = makes_room
        self._to_begin = {task.name: task for task in tasks}
        self._lock = threading.Condition()
        self._expected: dict[str, int] = {}  # bytes of each running task, in all
        self._to_come: dict[str, int] = {}  # and still to be written
        self._full = False

    def check(self, num_workers: int) -> None:
        tasks = self._to_begin.values()
        needed = sum(task.written(task.source_bytes()) for task in tasks)
        needed += sum(sorted(task.scratch_bytes() for task in tasks)[-num_workers:])
        free = files.free_bytes(self._folder)
        if free is not None and needed > free:
            raise files.DiskFull(
                errno.ENOSPC,
                f"What comes of {counted(len(tasks), 'tar')} needs up to {format_bytes(needed)},"
                f" and in {self._folder} {format_bytes(free)} are free. Nothing was written; make"
                " room, or take fewer tars.",
            )

    def refuse_if_full(self, task: Task) -> None:
        if self._full:
            raise files.DiskFull(
                errno.ENOSPC,
                f"{task.name} was not begun: the disk is full. Make room in {self._folder}"
                " and run the same again; what was finished is kept.",
            )

    def begin(self, task: Task) -> None:
        with self._lock:
            expected = task.written(task.source_bytes()) + task.scratch_bytes()
            while not self._full:
                if self._is_next(task):
                    if self._fits(expected):
                        break
                    self._full = not (self._makes_room and self._to_come)
                if not self._full:
                    self._lock.wait()
            self._forget(task)
            self.refuse_if_full(task)
            self._expected[task.name] = self._to_come[task.name] = expected

    def _is_next(self, task: Task) -> bool:
        earlier = itertools.takewhile(lambda other: other is not task, self._to_begin.values())
        return not any(other.source_bytes() for other in earlier)

    def _forget(self, task: Task) -> None:
        """It is not waited for any more."""
        self._to_begin.pop(task.name, None)
        self._lock.notify_all()

    def _fits(self, expected: int) -> bool:
        free = files.free_bytes(self._folder)
        return free is None or expected + sum(self._to_come.values()) <= free

    def close(self) -> None:
        """Nobody waits for room any more."""
        with self._lock:
            self._full = True
            self._lock.notify_all()

    def handle(self, event: Event) -> None:
        task, name = event.task, event.task.name
        with self._lock:
            if isinstance(event, Running) and name in self._to_come:
                left = max(0.0, 1 - event.bytes / max(1, task.source_bytes()))
                self._to_come[name] = int(left * self._expected[name])

    def end(self, task: Task, error: Exception | None) -> None:
        with self._lock:
            self._to_come.pop(task.name, None)
            if isinstance(error, files.DiskFull):
                self._full = True
            self._forget(task)
