"""In which order a tar's images lie in its shards, and where one shard ends and the next begins.

**Order.** Examples are sorted by a keyed hash (BLAKE2b) of the image's file name. It is a fixed
pseudo-random permutation that is the same for every version of Python and NumPy, so that reading
the shards one after the other is a fair sample of each tar.

**Size.** A tar is cut into the fewest shards of about equal size that all stay below
`max_shard_size`. The default is TFDS's own, 1 GiB: benchmarks/shard_size.py finds no size faster to
read, and a smaller one would give SA-1B tens of thousands of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from sa1b_tfds.tars.pairs import Entry

MAX_SHARD_SIZE = 2**30
_ORDER_KEY = b"sa1b_tfds"


def shuffled(entries: Iterable[Entry]) -> list[Entry]:
    """Sorts a tar's images into the order of its shards."""
    return sorted(entries, key=_rank)


def _rank(entry: Entry) -> bytes:
    name = entry.jpeg.name.rpartition("/")[2]
    return hashlib.blake2b(name.encode(errors="surrogateescape"), key=_ORDER_KEY).digest()


def cut(
    entries: Sequence[Entry],
    *,
    limit: int | None = None,
    num_shards: int | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
) -> list[Sequence[Entry]]:
    """Divides entries into one part for each shard.

    Args:
      entries: in the order of the shards.
      limit: only so many of the first entries count. The rest goes to the last part, to take the
        place of entries that turn out bad.
      num_shards: exactly so many parts, if there are entries enough. None cuts by size.
      max_shard_size: bytes of a part, unless one entry has more.
    """
    counted = entries[:limit]
    if not counted:
        return []
    ends = np.cumsum([entry.size for entry in counted])
    if num_shards is not None:
        number = min(num_shards, len(counted))
        first = [round(len(counted) * i / number) for i in range(number)]
    else:
        room = max_shard_size - max(entry.size for entry in counted)
        number = min(-(-int(ends[-1]) // max(room, 1)), len(counted))
        shard_of = (ends - ends[0]) * number // ends[-1]
        first = np.unique(shard_of, return_index=True)[1].tolist()
    stops = [*first[1:], len(entries)]
    return [entries[start:stop] for start, stop in zip(first, stops, strict=True)]
