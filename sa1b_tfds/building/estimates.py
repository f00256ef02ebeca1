"""How many bytes a tar becomes, before it was read."""

from __future__ import annotations

from sa1b_tfds.tars.archive import Archive
from sa1b_tfds.tars.forms import unpacked_bytes

# benchmarks/resize.py measures how many bytes of a pair are masks, and how many the image keeps at
# a long side of 1024 pixels.
_RESIZED_1024 = 0.5


def expected_bytes(archive: Archive, source: int, long_side: int | None) -> int:
    """About so many bytes of shards, rather less, for so many bytes of an archive."""
    plain = unpacked_bytes(source) if archive.is_packed() else source
    if long_side is None:
        return plain
    return int(plain * min(1.0, _RESIZED_1024 * max(1.0, (long_side / 1024) ** 2)))


def scratch_bytes(archive: Archive, source: int) -> int:
    """The bytes that converting it takes besides, for as long as it goes on."""
    return unpacked_bytes(source) if archive.is_packed() else 0
