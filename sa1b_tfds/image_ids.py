"""Which image ids were seen, and in which archive: 12 bytes an id, and a set for the last one."""

from __future__ import annotations

import numpy as np


class ImageIds:
    """Finds ids that come twice. Archives are added one after the other."""

    def __init__(self) -> None:
        self._archives: list[str] = []
        self._ids = np.empty(0, np.int64)  # of all archives but the last, in order
        self._archive_of = np.empty(0, np.int32)
        self._in_last: set[int] = set()

    def add(self, image_id: int, archive: str) -> str | None:
        """Returns the archive in which the id was before, or None and remembers it."""
        if archive not in self._archives[-1:]:
            self._merge_last()
            self._archives.append(archive)
        i = np.searchsorted(self._ids, image_id)
        if i < len(self._ids) and self._ids[i] == image_id:
            return self._archives[self._archive_of[i]]
        if image_id in self._in_last:
            return archive
        self._in_last.add(image_id)
        return None

    def _merge_last(self) -> None:
        added = np.array(list(self._in_last), np.int64)
        owner = np.full(len(added), len(self._archives) - 1, np.int32)
        ids = np.concatenate([self._ids, added])
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._archive_of = np.concatenate([self._archive_of, owner])[order]
        self._in_last = set()
