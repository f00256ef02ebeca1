"""How many bytes a tar becomes, before it was read."""

from __future__ import annotations

# benchmarks/resize.py measures how many bytes of a pair are masks, and how many the image keeps at
# a long side of 1024 pixels.
_RESIZED_1024 = 0.5


def expected_bytes(source: int, long_side: int | None) -> int:
    """About so many bytes of shards, rather less, for so many bytes of a tar."""
    if long_side is None:
        return source
    return int(source * min(1.0, _RESIZED_1024 * max(1.0, (long_side / 1024) ** 2)))
