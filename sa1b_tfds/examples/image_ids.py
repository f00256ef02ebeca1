"""Which image ids were seen, and in which archive: 12 bytes an id, and a set for the last one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

Excluded = tuple[tuple[int, str], ...]  # (image id, the earlier archive that has it)


class ImageIds:
    """Finds ids that come twice. Archives are added one after the other.

    excluded: ids that were seen before the first one.
    """

    def __init__(self, excluded: Excluded = ()) -> None:
        self._archives: list[str] = []
        self._ids = np.empty(0, np.int64)  # of all archives but the last, in order
        self._archive_of = np.empty(0, np.int32)
        self._in_last: set[int] = set()
        for image_id, archive in sorted(excluded, key=lambda pair: pair[1]):
            self.add(image_id, archive)

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


def repeated(ids_of: Mapping[str, np.ndarray]) -> dict[str, Excluded]:
    """Finds the image ids that come in several archives.

    Args:
      ids_of: int64 ids by the archive's name; each archive's own are unique. The order counts.

    Returns:
      For each archive that has some: (id, first archive with that id), for ids of earlier archives.
    """
    names = list(ids_of)
    ids = np.concatenate([np.empty(0, np.int64), *ids_of.values()])
    ordered = np.sort(ids)
    if not (ordered[1:] == ordered[:-1]).any():  # as in SA-1B: less is held
        return {}
    archive_of = np.repeat(np.arange(len(names)), [len(own) for own in ids_of.values()])
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(np.diff(ordered) == 0) + 1
    found: dict[str, list[tuple[int, str]]] = {}
    for place in again:
        image_id = ids[order[place]]
        first = order[np.searchsorted(ids, image_id, sorter=order)]
        owner, own = names[archive_of[first]], names[archive_of[order[place]]]
        found.setdefault(own, []).append((int(image_id), owner))
    return {name: tuple(pairs) for name, pairs in found.items()}


def fingerprint(excluded: Excluded) -> str | None:
    """What tells these from others; None if there is none."""
    # FIPS mode has no MD5 but for what is no matter of security.
    md5 = hashlib.md5(repr(excluded).encode(), usedforsecurity=False)
    return md5.hexdigest() if excluded else None
