"""What converting a tar will cost, before it was read: bytes of shards, of scratch, and seconds."""

from __future__ import annotations

from sa1b_tfds.tars.archive import Archive
from sa1b_tfds.tars.forms import unpacked_bytes
from sa1b_tfds.tars.scratch import needs_scratch

# benchmarks/resize.py measures how many bytes of a pair are masks, and how many the image keeps at
# a long side of 1024 pixels.
_RESIZED_1024 = 0.5

# Of a tar, by one worker: benchmarks/build.py on 2 cores of a cloud machine. Where images are made
# smaller, benchmarks/resize.py: 26 a second of 772 kB.
_BYTES_PER_SECOND = 200e6
_RESIZED_BYTES_PER_SECOND = 20e6
_INFLATED_PER_SECOND = 250e6
_PAIR_BYTES = 1.5e6  # of SA-1B the mean is 1.07 MB


def shard_bytes(archive: Archive, source: int, long_side: int | None) -> int:
    """About how many bytes of shards come of `source` bytes of an archive; rather too many."""
    plain = unpacked_bytes(source) if archive.is_packed() else source
    if long_side is None:
        return plain
    return int(plain * min(1.0, _RESIZED_1024 * max(1.0, (long_side / 1024) ** 2)))


def share_of(images: int, source: int) -> float:
    """About which share of `source` bytes of archives so many images are; rather too much."""
    return min(1.0, images * _PAIR_BYTES / max(1, source))


def scratch_bytes(archive: Archive, source: int) -> int:
    """The bytes that its plain tar takes on a disk, as long as the archive is being converted."""
    if not needs_scratch(archive):
        return 0
    return unpacked_bytes(source) if archive.is_packed() else source


def seconds(archive: Archive, source: int, long_side: int | None) -> float:
    """About how long one worker takes to convert `source` bytes of an archive."""
    speed = _BYTES_PER_SECOND if long_side is None else _RESIZED_BYTES_PER_SECOND
    inflated = unpacked_bytes(source) if archive.is_packed() else 0
    return source / speed + inflated / _INFLATED_PER_SECOND
