"""Worker processes: each takes one task at a time, such as a tar to convert.

A worker is a fresh interpreter, see `processes.py`, that tells how far it is. It ends when its
parent does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pickle
import queue
import subprocess
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from etils import epath

from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.processes import (
    answer,
    how_it_ended,
    open_answers,
    portable,
    receive_all,
    send,
    start,
)
from sa1b_tfds.core.throttle import Throttle

_PROGRESS_EVERY_S = 0.25


Progress = Callable[[int, int], None]  # images and bytes of the source that are done
Fetched = Callable[[int, int | None], None]  # bytes of it that are there, of how many


class Task(Protocol):
    """What one process does by itself. It is pickled; what comes of it lies in `folder`."""

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

    def run(self, on_progress: Progress) -> Any:
        """Does it; what it returns is in the event `Ended`."""


class WorkerDied(RuntimeError):
    """The process that worked on a task ended without an answer."""


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


def run(
    tasks: Iterable[Task],
    num_workers: int,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    before: Callable[[Task, Fetched], None] = lambda task, on_fetched: None,
    after: Callable[[Task], None] = lambda task: None,
) -> None:
    """Runs tasks in processes, and calls `on_event` with what `events` yields, in this thread."""
    with contextlib.closing(events(tasks, num_workers, before=before, after=after)) as all_events:
        for event in all_events:
            on_event(event)


def events(
    tasks: Iterable[Task],
    num_workers: int,
    *,
    before: Callable[[Task, Fetched], None] = lambda task, on_fetched: None,
    after: Callable[[Task], None] = lambda task: None,
) -> Generator[Event, None, None]:
    """Runs tasks in `num_workers` processes. What fails does not stop the others.

    Yields:
      For every task an event when it starts and when it ends, and some in between.

    Args:
      tasks: in the order in which they are begun.
      num_workers: how many at a time.
      before: called before a task is given to a process, in that worker's thread, with what it may
        tell how much it has fetched; what it raises fails the task.
      after: the same, once the task is finished.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    total = 0
    for task in tasks:
        waiting.put(task)
        total += 1
    said: queue.SimpleQueue[Event] = queue.SimpleQueue()
    workers = [_Worker() for _ in range(min(num_workers, total))]
    for worker in workers:
        arguments = (worker, waiting, said.put, before, after)
        threading.Thread(target=_work_off, args=arguments, daemon=True).start()
    try:
        ended = 0
        while ended < total:
            event = said.get()
            ended += isinstance(event, Ended)
            yield event
    finally:
        for worker in workers:
            worker.stop()


def _work_off(
    worker: _Worker,
    waiting: queue.SimpleQueue[Task],
    say: Callable[[Event], None],
    before: Callable[[Task, Fetched], None],
    after: Callable[[Task], None],
) -> None:
    while True:
        try:
            task = waiting.get_nowait()
        except queue.Empty:
            return
        say(Started(task))
        error = result = None
        try:
            worker.refuse_if_stopped(task)  # before anything is fetched for it
            before(task, functools.partial(_say_fetching, say, task))
            result = worker.work(task, functools.partial(_say_running, say, task))
            after(task)
        except Exception as e:
            error = e
        say(Ended(task, error, result))


def _say_fetching(say: Callable[[Event], None], task: Task, size: int, total: int | None) -> None:
    say(Fetching(task, size, total))


def _say_running(say: Callable[[Event], None], task: Task, images: int, size: int) -> None:
    say(Running(task, images, size))


class _Worker:
    """A process that is started when it is needed, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def refuse_if_stopped(self, task: Task) -> None:
        if self._stopped:
            raise WorkerDied(f"{task.name} was not begun: the run was stopped.")

    def work(self, task: Task, on_progress: Progress) -> Any:
        with self._lock:
            self.refuse_if_stopped(task)
            process = self._process = self._process or start(__name__)
        try:
            send(task, process.stdin)
            while not isinstance(said := pickle.load(process.stdout), _Answer):  # type: ignore[arg-type]
                on_progress(*said)
        except (EOFError, OSError, pickle.UnpicklingError) as e:
            raise WorkerDied(_obituary(task, self._end(process))) from e
        except BaseException:  # such as what cannot be pickled, of which a part may be in the pipe
            self._end(process)
            raise
        if said.error is not None:
            raise said.error
        return said.result

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            process = self._process
        if process is not None:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.kill()
        with self._lock:
            self._process = None
        return process.wait()


def _obituary(task: Task, code: int) -> str:
    return (
        f"The worker process that had {task.name} {how_it_ended(code)} What was finished is kept;"
        " run the same again to go on."
    )


def main() -> None:
    """The worker's side: does the tasks that come in, until the parent closes the pipe."""
    answers = open_answers()
    tasks = receive_all()
    while True:
        answer(_do(tasks.get(), _Throttled(answers)), answers)


@dataclasses.dataclass(frozen=True)
class _Answer:
    result: Any = None
    error: Exception | None = None


def _do(task: Task, on_progress: Progress) -> _Answer:
    try:
        with os_errors_named(task.name):
            return _Answer(result=task.run(on_progress))
    except Exception as e:
        return _Answer(error=portable(e, task.name))


class _Throttled:
    def __init__(self, pipe: Any):
        self._pipe = pipe
        self._line = Throttle(_PROGRESS_EVERY_S)

    def __call__(self, images: int, size: int) -> None:
        if self._line.is_due():
            answer((images, size), self._pipe)
