"""What all that tells people of progress shares: numbers of bytes, and not too many lines."""

from __future__ import annotations

import time


def gigabytes(count: float) -> str:
    """A count of bytes for people, in powers of 1000 as disks and networks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


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
