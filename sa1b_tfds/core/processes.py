"""Processes that run functions of this package: fresh interpreters, not forks.

A process imports the modules of the functions that it is given and nothing of the caller's: it
works from a script without `if __name__ == '__main__'`, from a notebook, and beside threads and
TensorFlow in the parent. What it is given and what it returns is pickled over its pipes. It ends
when its parent does.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_ENVIRONMENT = {
    # Else glibc gives the memory of each image back to the kernel and takes it anew for the next
    # one, which costs a tenth of the time of a tar.
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    # Nothing here multiplies matrices. NumPy would start a thread for each core in each process,
    # and as they spin for a while, processes that start together would take a third longer.
    "OPENBLAS_NUM_THREADS": "1",
}
_PACKAGE = os.path.dirname(os.path.dirname(__file__))
# The package without its __init__, which would load TFDS to register the builder: that is half the
# time that a process takes to start.
# Nothing here makes many cycles: to look for them at each 700 objects takes 3 % of a build.
_MAIN = """
import gc, importlib, sys, types
gc.set_threshold(50_000)
package = types.ModuleType('sa1b_tfds')
package.__path__ = [sys.argv[1]]
sys.modules['sa1b_tfds'] = package
importlib.import_module(sys.argv[2]).main()
"""
_SAID, _RETURNED, _RAISED = "said", "returned", "raised"  # what an answer is


class ProcessDied(RuntimeError):
    """A process ended without an answer."""


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_workers(workers: int | None, name: str = "workers") -> None:
    """Raises a ValueError if it is a number below 1."""
    if workers is not None and workers < 1:
        raise ValueError(f"{name} must be positive, got {workers}.")


def worker_count(workers: int | None, name: str = "workers") -> int:
    """Returns `workers`, or one a core if that is None; raises what `check_workers` raises."""
    check_workers(workers, name)
    return available_cores() if workers is None else workers


class Process:
    """One process that runs functions, one after the other.

    It is started when it is first needed, and again after it has died. One thread calls; another
    one may `kill` it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        on_said: Callable[[Any], None] | None = None,
        what: str | None = None,
        advice: str = "",
    ) -> Any:
        """Has a function of a module run; returns or raises what it does.

        Args:
          function, args: are pickled.
          on_said: called with what the function says meanwhile. The function gets what to say it
            with as its last argument.
          what: names the process if it dies. Defaults to the one that ran the function.
          advice: what to do then.

        Raises:
          ProcessDied: if it ends without an answer, or was killed before.
        """
        with self._lock:
            if self._is_closed:
                raise ProcessDied("The processes were closed.")
            process = self._process = self._process or start()
        try:
            _send((function, args, on_said is not None), process.stdin)
            while True:
                kind, value = pickle.load(process.stdout)  # type: ignore[arg-type]
                if kind != _SAID:
                    break
                if on_said is not None:
                    on_said(value)
        except (EOFError, OSError, pickle.UnpicklingError) as e:
            what = what or f"The process that ran {function.__name__}"
            raise ProcessDied(f"{what} {_how_it_ended(self._end(process))}{advice}") from e
        except BaseException:  # such as what cannot be pickled, of which a part may be in the pipe
            self._end(process)
            raise
        if kind == _RAISED:
            raise value
        return value

    def kill(self) -> None:
        """Ends it, for good."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()

    def wait(self) -> None:
        """Returns when it has ended, after `kill`."""
        with self._lock:
            process = self._process
        if process is not None:
            process.wait()

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.kill()
        with self._lock:
            self._process = None
        return process.wait()


def close_all(processes: Sequence[Process]) -> None:
    """Kills processes, whatever they do, and returns when they have ended."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


class Processes:
    """Up to `number` processes that run functions; each is started when it is first needed.

    Use it in a `with` block: what still runs at its end is killed.
    """

    def __init__(self, number: int):
        self._processes = [Process() for _ in range(number)]
        self._idle: queue.SimpleQueue[Process] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = concurrent.futures.ThreadPoolExecutor(number, "sa1b_tfds")

    def submit(
        self, function: Callable[..., _Result], *args: Any
    ) -> concurrent.futures.Future[_Result]:
        """Has a function of a module run; its result or error is in the future."""
        return self._threads.submit(self._run, function, args)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        close_all(self._processes)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, function: Callable[..., _Result], args: tuple[Any, ...]) -> _Result:
        process = self._idle.get()
        try:
            return process.call(function, *args)
        finally:
            self._idle.put(process)


def portable(error: Exception, where: str) -> Exception:
    """The error itself, or one with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} in {where}: {error}")
    return error


def start() -> subprocess.Popen[bytes]:
    """Starts an interpreter that runs `main`."""
    paths = [path or os.getcwd() for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, _PACKAGE, __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C is the parent's to handle
    )


def main() -> None:
    """The process's side: runs what comes in, until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to stderr

    def answer(kind: str, value: Any) -> None:
        try:
            _send((kind, value), answers)
        except BrokenPipeError:
            os._exit(0)  # the parent is gone

    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(calls,), daemon=True).start()
    while True:
        function, args, says = calls.get()
        if says:
            args = (*args, functools.partial(answer, _SAID))
        try:
            kind, value = _RETURNED, function(*args)
        except Exception as e:
            kind, value = _RAISED, portable(e, function.__name__)
        answer(kind, value)


def _receive(received: queue.SimpleQueue[Any]) -> None:
    """Queues what the parent sends. Ends the process when the parent closes the pipe."""
    try:
        while True:
            received.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        os._exit(0)  # also in the middle of a call: nobody is left to take its result
    except pickle.UnpicklingError as e:
        if "truncated" not in str(e):
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # the parent was killed while it sent something
    except BaseException:  # what came cannot be read here; the parent sees the process end
        traceback.print_exc()
        os._exit(1)


def _send(what: Any, pipe: Any) -> None:
    pickle.dump(what, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _how_it_ended(code: int) -> str:
    """Of a return code: 'was ended by SIGKILL', with a hint."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    hint = ""
    if code == -signal.SIGKILL:
        hint = " That is what the kernel does when memory runs out: try fewer workers."
    return f"{how}.{hint}"
