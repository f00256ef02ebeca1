"""When to give up a file: after too many attempts without progress, or when it comes too slowly.

It is the same for a file that is stored and for one that is streamed.
"""

from __future__ import annotations

# A drip of bytes is no progress: about what the lowest speed brings in the pause between attempts.
_PROGRESS_BYTES = 1000


class Attempts:
    """Counts the attempts in a row that brought no progress.

    Progress is a position beyond those reached before. Bytes alone are no progress: a server may
    begin anew each time and break at the same byte.

    Args:
      position: where the first attempt begins.
      slow_bytes: an attempt that ended because it was too slow must bring at least these.
    """

    def __init__(self, position: int, slow_bytes: float):
        self._furthest = position
        self._slow_bytes = slow_bytes
        self._failures = 0

    def failed_at(self, position: int, was_too_slow: bool) -> int:
        """An attempt ended there; returns the number of those without progress, this included."""
        needed = max(_PROGRESS_BYTES, self._slow_bytes if was_too_slow else 0)
        if position - self._furthest >= needed:
            self._failures = 0
            self._furthest = position
        elif was_too_slow:  # two of them are not progress together
            self._furthest = max(self._furthest, position)
        self._failures += 1
        return self._failures


class Pace:
    """Whether a body comes at the lowest speed; only time spent waiting for it counts.

    Args:
      lowest: bytes a second.
      seconds: for so long it may be slower.
    """

    def __init__(self, lowest: float, seconds: float):
        self._lowest = lowest
        self._seconds = seconds
        self._waited = 0.0
        self._came = 0

    def is_too_slow(self, came: int, waited: float) -> bool:
        """After bytes that came, and the seconds that they took."""
        self._came += came
        self._waited += waited
        if self._waited < self._seconds:
            return False
        too_slow = self._came < self._lowest * self._waited
        self._came, self._waited = 0, 0.0
        return too_slow
