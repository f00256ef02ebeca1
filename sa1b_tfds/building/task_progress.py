"""How far a tar is, for the bar: several tasks may read it in one pass."""

from __future__ import annotations

from sa1b_tfds.core.running.workers import OnProgress

# The part of a compressed tar's time that inflating takes (benchmarks/build.py).
_INFLATING = 0.5


class TaskProgress:
    """Tells how much of a tar is done: its inflating, then its tasks one after the other.

    size: bytes of the tar.
    tasks: how many there are. All have the same images, so those of the first are counted.
    on_progress: is told the number of images, and the bytes that are done.
    """

    def __init__(self, *, size: int, is_packed: bool, tasks: int, on_progress: OnProgress):
        self._share = _INFLATING if is_packed else 0.0  # of the time
        self._size = size
        self._tasks = tasks
        self._begun = 0
        self._images = 0
        self._on_progress = on_progress

    def inflated(self, size: int) -> None:
        self._on_progress(0, int(self._share * size))

    def of_next(self, total: int) -> OnProgress:
        """Returns what the next task tells of its images, and of what it has read of `total`."""
        before, share = self._share, (1 - self._share) / self._tasks
        begun, self._begun = self._begun, self._begun + 1

        def told(images: int, read: int) -> None:
            self._images = max(self._images, images)
            done = before + share * (begun + read / max(1, total))
            self._on_progress(self._images, int(done * self._size))

        return told
