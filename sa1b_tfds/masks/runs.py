"""Compressed RLE strings -> checked run lengths, and areas and boxes from them. NumPy only.

`rle` describes the format. pycocotools does not check its input: a malformed string may return a
wrong mask or write outside its memory. So this module checks every RLE before it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# No reader here takes a value of more than six characters; a larger image could need more.
MAX_PIXELS = 16384 * 16384
_MAX_CHARS_PER_RUN = 6

OUTSIDE_ALPHABET = "it holds a character outside the RLE alphabet ('0' to 'o')"
TRUNCATED = "it is empty or ends in the middle of a value (truncated)"
TOO_LONG = f"it holds a value of more than {_MAX_CHARS_PER_RUN} characters"
NEGATIVE_RUN = "it holds a negative run"
WRONG_SUM = "its runs do not sum to height * width"


class MalformedRLE(ValueError):
    """An RLE is not a mask: `index` is its place among those given, `reason` says why."""

    def __init__(self, index: int, reason: str):
        super().__init__(f"The RLE of mask {index} is malformed: {reason}.")
        self.index = index
        self.reason = reason

    # Unpickling calls the class with `args`, which are one text: workers could not send the error.
    def __reduce__(self) -> tuple:
        return type(self), (self.index, self.reason)


class Runs(NamedTuple):
    """The run lengths of N masks, one mask after the other.

    lengths: int64 [V], the runs of all masks.
    splits: int64 [N + 1]; mask i has lengths[splits[i]:splits[i + 1]].
    """

    lengths: np.ndarray
    splits: np.ndarray

    def mask(self) -> np.ndarray:
        """int64 [V], the mask of each run."""
        return np.repeat(np.arange(len(self.splits) - 1), np.diff(self.splits))

    def is_one(self) -> np.ndarray:
        """bool [V], whether each run is of ones. The first run of a mask is of zeros."""
        return (np.arange(len(self.lengths)) - self.splits[self.mask()]) % 2 == 1


def check_size(size: Any, name: str = "size") -> tuple[int, int]:
    """Returns (height, width) as integers.

    Raises:
      ValueError: if `size` is not two positive integers, or is over the limit; names it as `name`.
    """
    try:
        height, width = (int(side) for side in size)
        exact = (height, width) == tuple(size)
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact or height < 1 or width < 1:
        raise ValueError(f"{name} must be two positive integers [height, width], got {size!r}.")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{name} {height}x{width} is over the limit of {MAX_PIXELS} pixels.")
    return height, width


def are_large(size: Sequence[int] | None = None, max_masks: int | None = None) -> bool:
    """Whether the masks of an image take over 64 MB, so that few images fit in memory at once.

    Args:
      size: (h, w) of the masks. Defaults to full size, taken as 1500x2250.
      max_masks: the most masks of an image. Defaults to no limit, taken as 100.
    """
    height, width = (1500, 2250) if size is None else size
    return (max_masks or 100) * height * width > 2**26


def run_lengths(counts: Sequence[bytes | str], size: Sequence[int]) -> Runs:
    """Parses and checks the compressed counts of N masks of one image.

    Args:
      counts: N compressed RLE strings.
      size: (height, width) of every mask.

    Raises:
      MalformedRLE: if a mask is not an RLE of that size; names the first one and the reason.
    """
    height, width = check_size(size)
    encoded = as_bytes(counts)
    if not encoded:
        return Runs(np.zeros(0, np.int64), np.zeros(1, np.int64))

    sizes = np.array([len(c) for c in encoded])
    ends = np.cumsum(sizes)
    group = np.frombuffer(b"".join(encoded), np.uint8) - np.uint8(48)
    if len(group) and group.max() > 63:  # a character below '0' wrapped around
        outside = np.flatnonzero(group > 63)
        raise MalformedRLE(int(np.searchsorted(ends, outside[0], "right")), OUTSIDE_ALPHABET)
    last = group < 32
    _refuse(np.flatnonzero(sizes == 0), TRUNCATED)  # first: ends - 1 would be the mask before
    _refuse(np.flatnonzero(~last[ends - 1]), TRUNCATED)

    last_char = np.flatnonzero(last)
    splits = np.append(0, np.searchsorted(last_char, ends))
    lengths = _undo_differences(_values(group, last_char, splits), splits[:-1])
    # An int32 may have overflowed, but only after a first run outside these bounds.
    if lengths.min() < 0 or lengths.max() > height * width:
        outside = np.flatnonzero((lengths < 0) | (lengths > height * width))
        reason = NEGATIVE_RUN if lengths[outside[0]] < 0 else WRONG_SUM
        _refuse(np.searchsorted(splits, outside, "right") - 1, reason)
    total = np.add.reduceat(lengths, splits[:-1], dtype=np.int64)
    _refuse(np.flatnonzero(total != height * width), WRONG_SUM)
    return Runs(lengths.astype(np.int64), splits)


def as_bytes(counts: Sequence[bytes | str]) -> list[bytes]:
    """Returns counts as bytes; raises a ValueError if one is neither a string nor bytes."""
    encoded = [c.encode() if isinstance(c, str) else c for c in counts]
    if not all(isinstance(c, bytes) for c in encoded):
        raise ValueError("Compressed counts must be strings or bytes.")
    return encoded


def areas(runs: Runs) -> np.ndarray:
    """int64 [N], the number of pixels of each mask."""
    ones = np.append(0, np.cumsum(runs.lengths * runs.is_one()))
    return ones[runs.splits[1:]] - ones[runs.splits[:-1]]


def bboxes(runs: Runs, size: Sequence[int]) -> np.ndarray:
    """int64 [N, 4], the box of each mask as `rle.bbox` returns it; all masks have one size."""
    height, width = check_size(size)
    boxes = np.zeros((len(runs.splits) - 1, 4), np.int64)
    kept = np.flatnonzero(runs.is_one() & (runs.lengths > 0))
    if not len(kept):
        return boxes
    mask = runs.mask()[kept]
    stop = np.cumsum(runs.lengths)[kept] - mask * (height * width) - 1
    x_start, y_start = np.divmod(stop + 1 - runs.lengths[kept], height)
    x_stop, y_stop = np.divmod(stop, height)
    # A run that goes on into the next column touches the bottom of one and the top of the other.
    whole_column = x_start != x_stop
    first = np.flatnonzero(np.diff(mask, prepend=-1))
    x_min, y_min = (
        np.minimum.reduceat(v, first) for v in (x_start, np.where(whole_column, 0, y_start))
    )
    x_max, y_max = (
        np.maximum.reduceat(v, first) for v in (x_stop, np.where(whole_column, height - 1, y_stop))
    )
    boxes[mask[first]] = np.stack([x_min, y_min, x_max - x_min, y_max - y_min], axis=1)
    return boxes


def _values(group: np.ndarray, last_char: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """-> int32 [V], each value from its groups; `last_char` [V] is the place of its last group.

    Nearly all values have at most three groups. They are looked up in a table of 2 ** 16 entries,
    which fits the processor's caches. The others are computed.
    """
    goes_on = group >> 5
    second = group * goes_on  # a group that another follows, else 0
    third = second[:-1] * goes_on[1:]  # a group that two others follow, else 0
    # The key of a place: its group, and above it the one or two before that belong to the value.
    # Groups have 6 bits and are 5 apart, so that they overlap by the bit that says "goes on".
    key = group.astype(np.uint16)
    for back, groups in ((1, second), (2, third)):
        shifted = groups[:-1].astype(np.uint16) * np.uint16(1 << 5 * back)  # faster than <<
        np.bitwise_xor(key[back:], shifted, out=key[back:])
    values = _value_of_three_groups().take(key.take(last_char))
    # Where a fourth group goes on into the last three, the table's value lacks the groups before.
    ends = 3 + np.flatnonzero((goes_on[:-3] & goes_on[1:-2] & goes_on[2:-1]) > goes_on[3:])
    if len(ends):
        longer = np.searchsorted(last_char, ends)
        values[longer] = _value_of_more_groups(group, ends, splits, longer)
    return values


@functools.cache
def _value_of_three_groups() -> np.ndarray:
    """int32 [2**16], the value of each key: three groups if it has bit 15, else two if bit 10."""
    key = np.arange(1 << 16, dtype=np.int32)
    three = key >> 15 == 1
    two = three | (key >> 10 & 1 == 1)
    value = ((key & 31) ^ 16) - 16
    value[two] = (value[two] << 5) + (key[two] >> 5 & 31)
    value[three] = (value[three] << 5) + (key[three] >> 10 & 31 ^ 1)  # `second` flipped one bit
    return value


def _value_of_more_groups(
    group: np.ndarray, ends: np.ndarray, splits: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """-> int32, the values whose last groups are at `ends`; `index` is their place among all."""
    value = (group[ends].astype(np.int32) ^ 16) - 16
    more = np.ones(len(ends), bool)
    for back in range(1, _MAX_CHARS_PER_RUN + 1):
        before = group[ends - back]  # a negative place wraps around; `ends >= back` drops it
        more &= (before >= 32) & (ends >= back)
        if not more.any():
            break
        if back == _MAX_CHARS_PER_RUN:
            _refuse(np.searchsorted(splits, index[more], "right") - 1, TOO_LONG)
        value = np.where(more, (value << 5) + (before & 31), value)
    return value


def _undo_differences(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Turns values [V] into lengths in place, in the same dtype; `first` [N] is each mask's start.

    In each mask, run 0 is stored as it is, and runs 1, 3, 5, ... and 2, 4, 6, ... are two chains of
    differences. Every second value of the whole array belongs to one chain or another, so two
    cumulative sums undo all chains. At the start of each chain the sum of the one before is
    subtracted.
    """
    stop = np.append(first[1:], len(values))
    # Run 2 is stored as it is as well, not as its difference from run 0: take run 0 off before.
    has_run_2 = first[first + 2 < stop]
    values[has_run_2 + 2] -= values[has_run_2]
    for parity in (0, 1):
        part = np.ascontiguousarray(values[parity::2])  # np.cumsum is slow on a stride of 2
        begins, ends = (first + 1 - parity) // 2, (stop + 1 - parity) // 2
        begins = begins[begins < ends]
        if len(begins):
            part[begins[1:]] -= np.add.reduceat(part, begins, dtype=part.dtype)[:-1]
        values[parity::2] = np.cumsum(part, dtype=part.dtype)
    return values


def _refuse(masks: np.ndarray, reason: str) -> None:
    if len(masks):
        raise MalformedRLE(int(masks[0]), reason)
