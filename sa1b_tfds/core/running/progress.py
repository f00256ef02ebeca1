"""Events of tasks, passed on to a `Reporter`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sa1b_tfds.core.progress import AnyReporter
from sa1b_tfds.core.running.workers import Ended, Event, Fetching, Running, Task
from sa1b_tfds.core.text import counted


class TaskProgress:
    """Passes the events of tasks on to a reporter.

    Args:
      reporter: receives them.
      tasks: those that are done now.
      unit: what one of them is called. Defaults to 'tar'.
      is_quiet: print nothing when a task ends, because the caller does.
    """

    def __init__(
        self,
        reporter: AnyReporter,
        tasks: Sequence[Task],
        unit: str = "tar",
        is_quiet: bool = False,
    ):
        self._reporter = reporter
        self._is_quiet = is_quiet
        self._sizes = {task.name: task.expected_bytes() for task in tasks}
        self._states: dict[str, _TaskState] = {}
        items = [_TaskItem(name, size) for name, size in self._sizes.items()]
        reporter.planned(_TaskPlan(counted(len(tasks), unit), items))

    def handle(self, event: Event) -> None:
        name = event.task.name
        if isinstance(event, Fetching):
            self._states[name] = _TaskState(
                name, event.bytes, event.total, is_counted=False, activity="download"
            )
        elif isinstance(event, Running):
            self._states[name] = _TaskState(
                name, event.bytes, self._sizes[name], images=event.images
            )
        elif isinstance(event, Ended):
            self._states.pop(name, None)
            text = "done" if event.error is None else f"failed: {_reason(name, event.error)}"
            self._reporter.ended(
                _TaskOutcome(name, event.error is None, None if self._is_quiet else text)
            )
        self._reporter.running(list(self._states.values()))


def _reason(name: str, error: Exception) -> str:
    """The error without the name that stands before it: a path, its end, or a file's name."""
    text = str(error)
    before, _, reason = text.partition(": ")
    return reason if reason and _base(before) == _base(name) else text


def _base(name: str) -> str:
    """'sa_000000' of 'tars/sa_000000.tar'."""
    base = name.rpartition("/")[2]
    for suffix in (".gz", ".tgz", ".tar"):
        base = base.removesuffix(suffix)
    return base


class _TaskItem(NamedTuple):
    name: str
    size: int
    on_disk: int = 0


@dataclass(frozen=True)
class _TaskPlan:
    title: str
    items: Sequence[_TaskItem]


@dataclass(frozen=True)
class _TaskState:
    name: str
    position: int
    size: int | None
    is_counted: bool = True
    images: int = 0
    activity: str = ""


@dataclass(frozen=True)
class _TaskOutcome:
    name: str
    is_whole: bool
    text: str | None
