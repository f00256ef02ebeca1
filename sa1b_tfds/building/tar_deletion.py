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

from sa1b_tfds.building.shards import Task
from sa1b_tfds.building.sources import Sources, is_in_flight
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.examples.image_ids import ImageIds
from sa1b_tfds.tars.archive import Archive


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


def release_after(
    sources: Sources, staging: Staging, fits: Callable[[FinishedTar], bool]
) -> Callable[[Task], None] | None:
    """What is to be called after each task; None if nothing is ever to be released.

    It releases at once what can be downloaded again, and the user's own once it is settled.
    """
    release = sources.release
    if release is None:
        return None
    for source in filter(is_in_flight, sources.archives):  # for which a kill left no time
        tar = staging.finished(source.name)
        if tar and source.identity() is not None and fits(tar):
            release(source, tar, staging.is_intact)
    settled = Settled(sources.archives, staging, fits)

    def after(task: Task) -> None:
        finished = staging.finished(task.archive.name)
        if is_in_flight(task.archive) and finished is not None:
            release(task.archive, finished, staging.is_intact)
        for own, finished in settled.advance():
            if not is_in_flight(own):
                release(own, finished, staging.is_intact)

    return after
