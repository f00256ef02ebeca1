"""Workers that are threads, for tests of what is done and not of where.

A worker process takes four times as long to start as to convert a tar of the tests. What a worker
is given and what it returns is pickled here too. What processes do (that they end, are killed, or
import nothing of the caller's) is tested with processes.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from unittest import mock

from sa1b_tfds.core import processes
from sa1b_tfds.core.running import workers

PROCESS = processes.Process


def copy(what):
    """As it comes out of a pipe."""
    return pickle.loads(pickle.dumps(what, pickle.HIGHEST_PROTOCOL))


class Thread(processes.Process):
    """Has the interface of a process, and runs functions in the thread that calls."""

    def __init__(self):
        super().__init__()
        self._at_work = threading.Lock()

    def call(self, function, *args, on_said=None, what=None, advice=""):
        if self.is_closed:
            raise processes.ProcessDied("The processes were closed.")
        function, args = copy((function, args))
        if on_said is not None:
            args = (*args, lambda said: on_said(copy(said)))
        with self._at_work:
            try:
                return copy(function(*args))
            except Exception as e:
                raise copy(processes.portable(e, function.__name__)) from None
            except BaseException as e:  # nobody would hear of it, and all would wait for ever
                raise RuntimeError("A worker was interrupted: this test needs processes.") from e

    def wait(self):
        """Nothing can end a thread: it finishes what it does."""
        with self._at_work:
            pass


@contextlib.contextmanager
def workers_are(kind):
    with mock.patch.object(processes, "Process", kind), mock.patch.object(workers, "Process", kind):
        yield
