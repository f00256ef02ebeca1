"""Which finished tars a running build cannot need again, so that they may be deleted.

A tar is converted again when one of its images turns out to be in an earlier tar as well
(`conversion.py`). So it is settled once all before it are finished and have no image of it. What an
earlier build has staged of another tar of that name, or with other options, does not count. If such
a tar is deleted, this build cannot end, and the next one, with those options, needs all the others.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Sequence

from sa1b_tfds.archive import Archive
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.image_ids import ImageIds


class Settled:
    """Goes along the archives of a build in their order. Used by several threads."""

    def __init__(
        self, archives: Sequence[Archive], staging: Staging, fits: Callable[[FinishedTar], bool]
    ):
        self._staging = staging
        self._fits = fits
        self._waiting = collections.deque(archives)
        self._ids = ImageIds()
        self._lock = threading.Lock()
        deleted = set(staging.archives()) - {archive.name for archive in archives}
        for finished in filter(None, map(staging.finished, sorted(deleted))):
            self._has_repeated(finished)
            if not fits(finished):
                self._waiting.clear()

    def advance(self) -> list[tuple[Archive, FinishedTar]]:
        """Those that have become settled since the last call."""
        settled = []
        with self._lock:
            while self._waiting:
                finished = self._staging.finished(self._waiting[0].name)
                if finished is None or not self._fits(finished):
                    break
                archive = self._waiting.popleft()
                if not self._has_repeated(finished):
                    settled.append((archive, finished))
        return settled

    def _has_repeated(self, finished: FinishedTar) -> bool:
        """Whether one of its images was there before; remembers all of them."""
        earlier = [self._ids.add(i, finished.archive) for i in finished.image_ids.tolist()]
        return any(earlier)
