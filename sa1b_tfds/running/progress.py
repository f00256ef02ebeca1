"""Telling people how a run goes: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from tqdm import tqdm

from sa1b_tfds.archive import TAR_BYTES
from sa1b_tfds.running.pool import Reporter
from sa1b_tfds.running.workers import Ended, Event, Running, Task
from sa1b_tfds.telling import Every

_LINE_EVERY_S = 30.0


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
        self._line = Every(_LINE_EVERY_S, first=_LINE_EVERY_S)
        self._sizes = {t.name: t.source_bytes() or TAR_BYTES for t in tasks}
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
            self._write(f"{name}: {event.error or 'done'}")
        if self._line.is_due():
            self._write(f"{self._ended} of {len(self._sizes)} {self._unit}, {self.speed()}")

    def close(self) -> None:
        pass

    def speed(self) -> str:
        """Images and bytes a second since the start, and how long it takes still."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        done, total = sum(self._bytes.values()), sum(self._sizes.values())
        left = tqdm.format_interval((total - done) * seconds / done) if done else "?"
        images = sum(self._images.values())
        return f"{images / seconds:.0f} images/s, {done / seconds / 1e6:.0f} MB/s, {left} left"

    def _write(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self._stream, flush=True)


class Bars(Lines):
    """One bar for all and one for each that is at work now."""

    def __init__(self, stream: TextIO, unit: str):
        super().__init__(stream, unit)
        self._all: tqdm[Any] | None = None
        self._bars: dict[str, tqdm[Any]] = {}

    def planned(self, tasks: Sequence[Task]) -> None:
        super().planned(tasks)
        self._all = self._bar(f"{len(tasks)} {self._unit}", sum(self._sizes.values()), 0)

    def hear(self, event: Event) -> None:
        super().hear(event)
        name = event.task.name
        if isinstance(event, Running):
            if name not in self._bars:
                taken = {-bar.pos for bar in self._bars.values()}
                row = next(row for row in range(1, len(taken) + 2) if row not in taken)
                self._bars[name] = self._bar(name, self._sizes[name] or None, row)
            self._move(self._bars[name], event.bytes)
        elif isinstance(event, Ended) and name in self._bars:
            self._bars.pop(name).close()
        if self._all is not None:
            self._all.set_postfix_str(f"{self.speed()}, {self._ended} done", refresh=False)
            self._move(self._all, sum(self._bytes.values()))

    def close(self) -> None:
        for bar in [*self._bars.values(), self._all]:
            if bar is not None:
                bar.close()

    def _bar(self, name: str, total: int | None, row: int) -> tqdm[Any]:
        return tqdm(
            desc=name,
            total=total,
            position=row,
            leave=row == 0,
            file=self._stream,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
        )

    def _move(self, bar: tqdm[Any], position: int) -> None:
        bar.update(position - bar.n)

    def _write(self, text: str) -> None:
        tqdm.write(text, file=self._stream)


def reporter_for_people(unit: str = "tars", stream: TextIO | None = None) -> Reporter:
    """Bars where `stream` (standard error by default) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return Bars(stream, unit) if stream.isatty() else Lines(stream, unit)
