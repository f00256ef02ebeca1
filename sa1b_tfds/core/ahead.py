"""Results that are made ahead of where they are used: by futures, or by a thread."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

_Result = TypeVar("_Result")


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
