"""For what may be done often, and should be done only now and then."""

from __future__ import annotations

import time


class Throttle:
    """Says whether so many seconds have passed since it last said so.

    Args:
      seconds: from one time to the next.
      first: seconds until the first time. Defaults to none.
    """

    def __init__(self, seconds: float, first: float = 0.0):
        self._seconds = seconds
        self._next = time.monotonic() + first

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
