"""Daemon threads that run tasks, and one queue for all they say. Knows no downloads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any


class Crew:
    """Runs tasks on `size` threads; what tasks return and `say` comes out of `next`, in order.

    The threads are daemons: a Ctrl-C must not wait for a connection that no signal reaches.
    """

    def __init__(self, size: int):
        self._tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], Any]) -> None:
        """Queues a task. It may not raise: whoever waits for its result would wait for ever."""
        self._tasks.put(task)

    def say(self, news: Any) -> None:
        """From a task: something for the caller of `next`."""
        self._news.put(news)

    def next(self, timeout: float) -> Any:
        """The next news or result, None if there is none within `timeout` seconds."""
        try:
            return self._news.get(timeout=timeout)
        except queue.Empty:
            return None

    def leave(self, patience: float) -> None:
        """Ends the threads that can be ended within `patience` seconds; queued tasks still run."""
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._news.put(task())
