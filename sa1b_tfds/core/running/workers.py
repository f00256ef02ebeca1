"""Tasks in processes, one at a time in each, such as the tars of a build.

What comes of them is events: how far a task is, and how it ended. `core/processes.py` has the
processes themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from etils import epath

from sa1b_tfds.core import stores
from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.processes import Process, ProcessDied, close_all, portable
from sa1b_tfds.core.throttle import Throttle

_PROGRESS_EVERY_S = 0.25


OnProgress = Callable[[int, int], None]  # images and bytes of the source that are done
OnFetched = Callable[[int, int | None], None]  # bytes of it that are there, of how many


class Task(Protocol):
    """What one process does. It is pickled, and writes its results into `folder`."""

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> epath.Path: ...

    def source_bytes(self) -> int:
        """Bytes that it reads; 0 if they are not there yet."""

    def expected_bytes(self) -> int:
        """`source_bytes`; an estimate if they are not there yet."""

    def written(self, read: int) -> int:
        """About so many bytes are written, rather less, once so many are read."""

    def scratch_bytes(self) -> int:
        """Bytes that it takes in `folder` besides, until it ends."""

    def run(self, on_progress: OnProgress) -> Any:
        """Does it; what it returns is in the event `Ended`."""


@dataclasses.dataclass(frozen=True)
class Started:
    task: Task


@dataclasses.dataclass(frozen=True)
class Fetching:
    task: Task
    bytes: int
    total: int | None


@dataclasses.dataclass(frozen=True)
class Running:
    task: Task
    images: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Ended:
    """error: why it was not done; None if it was. result: what `run` returned."""

    task: Task
    error: Exception | None
    result: Any = None


Event = Started | Fetching | Running | Ended
OnEnded = Callable[[Task, Exception | None], None]


def run(
    tasks: Iterable[Task],
    num_workers: int,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    before: Callable[[Task, OnFetched], None] = lambda task, on_fetched: None,
    after: Callable[[Task], None] = lambda task: None,
    on_ended: OnEnded = lambda task, error: None,
) -> None:
    """Runs tasks in processes, and calls `on_event` with what `events` yields, in this thread."""
    said = events(tasks, num_workers, before=before, after=after, on_ended=on_ended)
    with contextlib.closing(said):
        for event in said:
            on_event(event)


def events(
    tasks: Iterable[Task],
    num_workers: int,
    *,
    before: Callable[[Task, OnFetched], None] = lambda task, on_fetched: None,
    after: Callable[[Task], None] = lambda task: None,
    on_ended: OnEnded = lambda task, error: None,
) -> Generator[Event, None, None]:
    """Runs tasks in `num_workers` processes. What fails does not stop the others.

    Yields:
      For every task an event when it starts and when it ends, and some in between.

    Args:
      tasks: in the order in which they are begun.
      num_workers: how many at a time.
      before: called before a task is given to a process, in that worker's thread, with a function
        to report fetched bytes to. What it raises fails the task.
      after: called in the same way once the task is finished. What it raises fails the task.
      on_ended: called in that thread with a task and what failed it, before another is begun there.
        An event may come later.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    total = 0
    for task in tasks:
        waiting.put(task)
        total += 1
    said: queue.SimpleQueue[Event] = queue.SimpleQueue()
    processes = [Process() for _ in range(min(num_workers, total))]
    for process in processes:
        arguments = (process, waiting, said.put, before, after, on_ended)
        threading.Thread(target=_work_off, args=arguments, daemon=True).start()
    try:
        ended = 0
        while ended < total:
            event = said.get()
            ended += isinstance(event, Ended)
            yield event
    finally:
        close_all(processes)


def _work_off(
    process: Process,
    waiting: queue.SimpleQueue[Task],
    say: Callable[[Event], None],
    before: Callable[[Task, OnFetched], None],
    after: Callable[[Task], None],
    on_ended: OnEnded,
) -> None:
    while True:
        try:
            task = waiting.get_nowait()
        except queue.Empty:
            return
        say(Started(task))
        error = result = None
        try:
            if process.is_closed:  # before anything is fetched for it
                raise ProcessDied(f"{task.name} was not begun: the run was stopped.")
            with stores.errors_named(task.name):
                before(task, functools.partial(_say_fetching, say, task))
            result = _run(process, task, say)
            after(task)
        except Exception as e:
            error = e
        on_ended(task, error)
        say(Ended(task, error, result))


def _say_fetching(say: Callable[[Event], None], task: Task, size: int, total: int | None) -> None:
    say(Fetching(task, size, total))


def _run(process: Process, task: Task, say: Callable[[Event], None]) -> Any:
    return process.call(
        run_task,
        task,
        on_said=lambda progress: say(Running(task, *progress)),
        what=f"The worker process that had {task.name}",
        advice=" What was finished is kept; run the same again to go on.",
    )


def run_task(task: Task, say: Callable[[tuple[int, int]], None]) -> Any:
    """The worker's side: runs a task, and says its images and bytes now and then.

    What is said last is what was done in the end.
    """
    throttle = Throttle(_PROGRESS_EVERY_S)
    unsaid: tuple[int, int] | None = None

    def on_progress(images: int, size: int) -> None:
        nonlocal unsaid
        unsaid = images, size
        if throttle.is_due():
            say(unsaid)
            unsaid = None

    try:
        with os_errors_named(task.name), stores.errors_named(task.name):
            return task.run(on_progress)
    except Exception as e:
        raise portable(e, task.name) from None
    finally:
        if unsaid is not None:
            say(unsaid)
