"""Processes that run functions of this package: fresh interpreters, not forks.

A process imports the modules of the functions that it is given and nothing of the caller's: it
works from a script without `if __name__ == '__main__'`, from a notebook, and beside threads and
TensorFlow in the parent. What it is given and what it returns is pickled over its pipes. It ends
when its parent does.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
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


def start(module: str) -> subprocess.Popen[bytes]:
    """Starts an interpreter that runs `main()` of a module of this package."""
    paths = [path or os.getcwd() for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, _PACKAGE, module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C is the parent's to handle
    )


def open_answers() -> Any:
    """The pipe to the parent; what a library prints goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def receive_all() -> queue.SimpleQueue[Any]:
    """What the parent sends, as it comes. The process ends when the parent closes the pipe."""
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(received,), daemon=True).start()
    return received


def _receive(received: queue.SimpleQueue[Any]) -> None:
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


def send(what: Any, pipe: Any) -> None:
    pickle.dump(what, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def answer(what: Any, pipe: Any) -> None:
    """Sends to the parent; ends the process without a word if that is gone."""
    try:
        send(what, pipe)
    except BrokenPipeError:
        os._exit(0)


def how_it_ended(code: int) -> str:
    """Of a return code: 'was ended by SIGKILL', with a hint."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    hint = ""
    if code == -signal.SIGKILL:
        hint = " That is what the kernel does when memory runs out: try fewer workers."
    return f"{how}.{hint}"


def portable(error: Exception, where: str) -> Exception:
    """The error itself, or one with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} in {where}: {error}")
    return error


class Processes:
    """Up to `number` processes that run functions; each is started when it is first needed.

    Use it in a `with` block: what still runs at its end is killed.
    """

    def __init__(self, number: int):
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        for _ in range(number):
            self._idle.put(None)
        self._threads = concurrent.futures.ThreadPoolExecutor(number, "sa1b_tfds")
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def submit(
        self, function: Callable[..., _Result], *args: Any
    ) -> concurrent.futures.Future[_Result]:
        """Has a function of a module run; its result or error is in the future."""
        return self._threads.submit(self._run, function, args)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.kill()
        for process in running:
            process.wait()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, function: Callable[..., _Result], args: tuple[Any, ...]) -> _Result:
        process = self._idle.get()
        try:
            process = process or self._start()
            send((function, args), process.stdin)
            succeeded, result = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, pickle.UnpicklingError) as e:
            if process is None:
                raise
            ended = how_it_ended(self._end(process))
            process = None
            raise ProcessDied(f"The process that ran {function.__name__} {ended}") from e
        except BaseException:  # such as what cannot be pickled, of which a part may be in the pipe
            if process is not None:
                self._end(process)
                process = None
            raise
        finally:
            self._idle.put(process)
        if not succeeded:
            raise result
        return result

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.kill()
        with self._lock:
            self._running.discard(process)
        return process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise ProcessDied("The processes were closed.")
            process = start(__name__)
            self._running.add(process)
        return process


def in_order(
    futures: Iterable[concurrent.futures.Future[_Result]], ahead: int
) -> Iterator[_Result]:
    """Yields the results of futures in their order, with up to `ahead` more of them under way."""
    waiting: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    for future in futures:
        waiting.append(future)
        while waiting and (len(waiting) > ahead or waiting[0].done()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def in_thread(iterate: Callable[[], Iterator[_Result]], ahead: int) -> Iterator[_Result]:
    """Yields what `iterate()` yields, which runs in a thread, up to `ahead` of them in advance."""
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(what: str, value: Any = None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((what, value), timeout=0.1)
                return

    def run() -> None:
        try:
            with contextlib.closing(iterate()) as results:  # type: ignore[type-var]
                for result in results:
                    put("result", result)
                    if stopped.is_set():
                        return
        except BaseException as e:
            put("error", e)
        else:
            put("end")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (got := waiting.get())[0] == "result":
            yield got[1]
        if got[0] == "error":
            raise got[1]
    finally:
        stopped.set()
        thread.join()


def main() -> None:
    """The process's side: runs what comes in, until the parent closes the pipe."""
    answers = open_answers()
    calls = receive_all()
    while True:
        function, args = calls.get()
        try:
            result = True, function(*args)
        except Exception as e:
            result = False, portable(e, function.__name__)
        answer(result, answers)
