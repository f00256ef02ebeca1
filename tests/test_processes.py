"""Processes that run functions and tasks: whatever is given to one, nobody waits for ever."""

import dataclasses
import os
import pathlib
import pickle
import sys
import threading
import time
import types

import pytest
from etils import epath

from sa1b_tfds.core import processes
from sa1b_tfds.core.processes import ProcessDied, Processes
from sa1b_tfds.core.running import workers
from tests.downloading import wait_for


@pytest.fixture
def only_here(monkeypatch):
    """A module that pickle knows here, and that no other process can import."""
    module = types.ModuleType("only_here")
    exec("class Thing:\n    name = 'thing'\n    folder = None", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    return module


def test_what_cannot_be_passed_is_an_error_and_the_next_call_is_answered(only_here):
    with Processes(1) as processes:
        with pytest.raises(Exception, match=r"lambda"):
            processes.submit(len, [b"x" * 2**20, lambda: None]).result(60)
        with pytest.raises(ProcessDied, match=r"The process that ran len ended with code 1"):
            processes.submit(len, [only_here.Thing()]).result(60)
        with pytest.raises(ProcessDied, match=r"The process that ran kill was ended by SIGKILL"):
            processes.submit(os.kill, 0, 9).result(60)
        with pytest.raises(TypeError, match=r"object of type 'int' has no len"):
            processes.submit(len, 1).result(60)
        assert processes.submit(len, [1, 2]).result(60) == 2


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_numpy_starts_no_thread_for_each_core_in_each_process():
    with Processes(1) as processes:
        processes.submit(exec, "import numpy").result(60)
        threads = processes.submit(os.listdir, "/proc/self/task").result(60)
    assert len(threads) == 2  # the one that works, and the one that hears its parent


@dataclasses.dataclass
class Task:
    name: str
    folder: epath.Path
    unfit: object = None

    def run(self, on_progress):
        on_progress(1, 1)
        pathlib.Path(self.folder, self.name).touch()


def run(tasks, **options):
    errors = {}

    def on_event(event):
        if isinstance(event, workers.Ended):
            errors[event.task.name] = event.error

    workers.run(tasks, 1, on_event=on_event, **options)
    return errors


def test_a_task_that_cannot_be_passed_fails_alone(only_here, tmp_path):
    tasks = [
        Task("a", tmp_path, lambda: None),
        Task("b", tmp_path, only_here.Thing()),
        Task("c", tmp_path),
    ]
    errors = run(tasks)
    assert "lambda" in str(errors["a"])
    assert str(errors["b"]).startswith("The worker process that had b ended with code 1.")
    assert errors["c"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@dataclasses.dataclass
class Broken(Task):
    error: Exception | None = None

    def run(self, on_progress):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error: 'a.tar'"),
        (OSError(5, "Input/output error", "b"), "[Errno 5] Input/output error: 'b'"),
        (OSError(28, "No space left"), "[Errno 28] No space left"),
        (OSError("no number"), "no number"),
    ],
)
def test_an_error_of_the_disk_names_what_was_read(tmp_path, error, said):
    assert str(run([Broken("a.tar", tmp_path, error=error)])["a.tar"]) == said


@pytest.mark.parametrize("when", ["idle", "in the middle of a message", "before its answer"])
@pytest.mark.parametrize("job", ["function", "task"])
def test_an_orphan_ends_without_a_word(when, job, tmp_path, capfd):
    process = processes.start()
    task = Task("a", tmp_path)
    message = pickle.dumps(
        (workers.run_task, (task,), True) if job == "task" else (time.sleep, (0.5,), False)
    )
    if when != "idle":
        process.stdout.close()
        process.stdin.write(message[:-5] if when == "in the middle of a message" else message)
        process.stdin.flush()
    if when == "before its answer":
        wait_for(lambda: process.poll() is not None, 60)
    process.stdin.close()
    assert process.wait(60) == 0
    assert capfd.readouterr().err == ""


def test_nothing_is_fetched_for_a_task_once_the_run_is_stopped(tmp_path):
    fetched, go_on = [], threading.Event()

    def fetch(task, on_fetched):
        fetched.append(task.name)
        go_on.wait(60)

    def interrupt(event):
        raise KeyboardInterrupt

    tasks = [Task(name, tmp_path) for name in "abc"]
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        workers.run(tasks, 1, on_event=interrupt, before=fetch)
    go_on.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert fetched in ([], ["a"])
    assert list(tmp_path.iterdir()) == []


class Counting(Task):
    def run(self, on_progress):
        for number in range(1, 33):
            on_progress(number, 10 * number)
        if self.unfit:
            raise ValueError(self.unfit)


@pytest.mark.parametrize("error", [None, "broken"])
def test_the_last_that_is_heard_of_a_task_is_all_that_was_done(tmp_path, error):
    heard = []
    workers.run([Counting("a", tmp_path, error)], 1, on_event=heard.append)
    *_, last, end = heard
    assert (last.images, last.bytes) == (32, 320)
    assert str(end.error) == str(error)
