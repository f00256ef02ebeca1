"""What all that tells people of progress shares: bytes, names, lines, and not too many."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TextIO

LINE_EVERY_S = 30.0  # of lines that only say how far a run is


def gigabytes(count: float) -> str:
    """A count of bytes for people, in powers of 1000 as disks and networks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """A time for people, rounded up to whole seconds."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{math.ceil(seconds)} s"


def counted(number: int, name: str) -> str:
    """'1 tar', '2,000 tars'."""
    return f"{number:,} {name}{'s' * (number != 1)}"


def some_of(names: Sequence[str]) -> str:
    """The first few names for a message: 'a, b, c, ...'."""
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def a_few(texts: Sequence[str]) -> str:
    """The first few and the number of the others: 'a, b, c and 2 more'."""
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more


def about(name: str, text: str) -> str:
    """`name: text`, without a second name where the text begins with it."""
    return text if text.startswith(f"{name}: ") else f"{name}: {text}"


def printable(text: str) -> str:
    """`text` from outside in one line, without the characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def log_line(text: str, stream: TextIO) -> None:
    """Writes a line with the time of day before it."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=stream, flush=True)


class Every:
    """Is due once in so many seconds, for the first time after `first` of them."""

    def __init__(self, seconds: float, first: float = 0.0):
        self._seconds = seconds
        self._next = time.monotonic() + first

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
