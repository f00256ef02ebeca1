"""Telling people how a run goes: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from sa1b_tfds.core import bars
from sa1b_tfds.core.bars import LINE_EVERY_S, log_line
from sa1b_tfds.core.running.pool import Reporter
from sa1b_tfds.core.running.workers import Ended, Event, Fetching, Running, Task
from sa1b_tfds.core.text import with_name
from sa1b_tfds.core.throttle import Throttle


class Lines:
    """Every task that ends, and where all are every half minute; `unit` names them."""

    def __init__(self, stream: TextIO, unit: str):
        self._stream = stream
        self._unit = unit
        self._begin([])

    def planned(self, tasks: Sequence[Task]) -> None:
        self._begin(tasks)  # a conversion may have several rounds

    def _begin(self, tasks: Sequence[Task]) -> None:
        self._began = time.monotonic()
        self._line = Throttle(LINE_EVERY_S, first=LINE_EVERY_S)
        self._sizes = {t.name: t.expected_bytes() for t in tasks}
        self._bytes: dict[str, int] = {}
        self._images: dict[str, int] = {}
        self._ended = 0

    def hear(self, event: Event) -> None:
        name = event.task.name
        if isinstance(event, Running):
            self._bytes[name], self._images[name] = event.bytes, event.images
        elif isinstance(event, Ended):
            self._ended += 1
            self._bytes[name] = self._sizes[name]
            self._write(with_name(name, str(event.error or "done")))
        self._show(event)

    def close(self) -> None:
        pass

    def images_per_second(self) -> str:
        """Since the start; empty where no images are counted."""
        images = sum(self._images.values())
        return f"{images / self._seconds():.0f} images/s, " if images else ""

    def speed(self) -> str:
        """Images and bytes a second since the start, and how long it takes still."""
        seconds = self._seconds()
        done, total = sum(self._bytes.values()), sum(self._sizes.values())
        left = tqdm.format_interval((total - done) * seconds / done) if done else "?"
        return f"{self.images_per_second()}{done / seconds / 1e6:.0f} MB/s, {left} left"

    def _seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-9)

    def _show(self, event: Event) -> None:
        """Tells how far the run is after an event, if it is time."""
        if self._line.is_due():
            self._write(f"{self._ended} of {len(self._sizes)} {self._unit}, {self.speed()}")

    def _write(self, text: str) -> None:
        log_line(text, self._stream)


class Bars(Lines):
    """One bar for all and one for each that is at work now; what is logged comes above them."""

    def __init__(self, stream: TextIO, unit: str):
        super().__init__(stream, unit)
        self._bars = bars.Bars(stream)
        self._logging = contextlib.ExitStack()

    def planned(self, tasks: Sequence[Task]) -> None:
        super().planned(tasks)
        self._logging.enter_context(logging_redirect_tqdm())
        self._bars.begin(f"{len(tasks)} {self._unit}", sum(self._sizes.values()))

    def _show(self, event: Event) -> None:
        name = event.task.name
        if isinstance(event, Fetching):
            self._bars.move(name, event.bytes, event.total, "download")
        elif isinstance(event, Running):
            self._bars.move(name, event.bytes, self._sizes[name])
        elif isinstance(event, Ended):
            self._bars.end(name)
        note = f"{self.images_per_second()}{self._ended} done"  # tqdm has bytes and time left
        self._bars.move_all(sum(self._bytes.values()), sum(self._sizes.values()), note)

    def close(self) -> None:
        self._bars.close()
        self._logging.close()

    def _write(self, text: str) -> None:
        self._bars.write(text)


def reporter_for_people(unit: str = "tars", stream: TextIO | None = None) -> Reporter:
    """Bars where `stream` (standard error by default) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return Bars(stream, unit) if stream.isatty() else Lines(stream, unit)
