"""The image ids in the names of an archive's files, without reading the files: 1 for `sa_1.jpg`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.tars.archive import Archive
from sa1b_tfds.tars.index import PairIndex, find_pairs
from sa1b_tfds.tars.pairs import Entry

_PREFIX = np.frombuffer(b"sa_", np.uint8)
_MOST_DIGITS = 18  # of a number that surely fits int64; ids of SA-1B have 8


def ids_in_names(index: PairIndex) -> np.ndarray:
    """int64 [N], for N pairs the id in each name; -1 where a name has none."""
    text = np.frombuffer(index.stems, np.uint8)
    ends = index.rows["stem_end"].astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    digits = ends - starts - len(_PREFIX)
    is_id = (digits >= 1) & (digits <= _MOST_DIGITS)
    ids = np.zeros(len(ends), np.int64)
    # Character by character over all names at once, as there are 11 million.
    for place in range(len(_PREFIX) + int(np.max(digits, where=is_id, initial=0))):
        there = is_id & (place < digits + len(_PREFIX))
        characters = text[starts[there] + place]
        if place < len(_PREFIX):
            is_id[there] = characters == _PREFIX[place]
        else:
            is_id[there] = (characters >= ord("0")) & (characters <= ord("9"))
            ids[there] = 10 * ids[there] + characters - ord("0")
    return np.where(is_id, ids, -1)


def ids_in_archive(archive: Archive, problems: Problems) -> np.ndarray:
    """As `ids_in_names`, of an archive; reports what `index_archive` reports."""
    return ids_in_names(find_pairs(archive, problems))


def ids_of_entries(entries: Iterable[Entry]) -> np.ndarray:
    """As `ids_in_names`, of the places of pairs."""
    return ids_in_names(PairIndex.of(entries))
