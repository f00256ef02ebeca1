"""COCO run-length encoding (RLE) on NumPy: read, check, write, measure. No TensorFlow here.

This module owns the conventions that the rest of the package refers to:

* **RLE.** A mask [H, W] is read column by column (Fortran order) and stored as the lengths of its
  runs, which alternate 0, 1, 0, ... and start with zeros. In compressed `counts` each length is
  written in groups of 5 bits, lowest first, one character (48 + group, +32 while more follow) a
  group; the last group is signed. From the fourth run on the difference to the run two before is
  written. This is the format of pycocotools (`cocoapi/common/maskApi.c`).
* **bbox.** XYWH in pixels, as SA-1B has it: over *inclusive* pixels, so that w = x_max - x_min.
  It is one less than `pycocotools.mask.toBbox` in width and height.

pycocotools trusts what it is given: a malformed string can give it a wrong mask or a wild write.
Everything here is checked first, and only then handed on.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

# A run of a larger image could need more than six characters, the most that any reader here takes.
MAX_PIXELS = 16384 * 16384
_MAX_CHARS_PER_RUN = 6

OUTSIDE_ALPHABET = "it holds a character outside the RLE alphabet ('0' to 'o')"
TRUNCATED = "it is empty or ends in the middle of a value (truncated)"
TOO_LONG = f"it holds a value of more than {_MAX_CHARS_PER_RUN} characters"
NEGATIVE_RUN = "it holds a negative run"
WRONG_SUM = "its runs do not sum to height * width"


class MalformedRLE(ValueError):
    """The RLE at `index` of those given cannot be a mask; `reason` says why."""

    def __init__(self, index: int, reason: str):
        super().__init__(f"The RLE of mask {index} is malformed: {reason}.")
        self.index = index
        self.reason = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.index, self.reason)


class Runs(NamedTuple):
    """Run lengths of N masks, one after the other.

    lengths: int64 [V], the runs of all masks.
    splits: int64 [N + 1], mask i has lengths[splits[i]:splits[i + 1]].
    """

    lengths: np.ndarray
    splits: np.ndarray

    def mask(self) -> np.ndarray:
        """The mask that each run belongs to, int64 [V]."""
        return np.repeat(np.arange(len(self.splits) - 1), np.diff(self.splits))

    def is_one(self) -> np.ndarray:
        """Whether each run is one of ones, bool [V]: the runs of a mask start with zeros."""
        return (np.arange(len(self.lengths)) - self.splits[self.mask()]) % 2 == 1


class Checked(NamedTuple):
    """N compressed RLEs of one image that `check` found well-formed.

    counts: of each of the N masks.
    size: (height, width) of every mask.
    """

    counts: list[bytes]
    size: tuple[int, int]


def check(counts: Sequence[bytes | str], size: Sequence[int]) -> Checked:
    """Checks N compressed RLEs of one image; raises what `run_lengths` raises."""
    encoded = _encoded(counts)
    run_lengths(encoded, size)
    return Checked(encoded, check_size(size))


def to_checked(masks: Any, size: Sequence[int] | None = None) -> Checked:
    """Brings the masks of one image, in any form, into compressed RLE, checked.

    Args:
      masks: a dense array [N, H, W] of NumPy, TensorFlow or PyTorch, what is not zero is inside;
        columns {'size': (H, W), 'counts': N compressed strings}; a list of COCO segmentations of
        one size, as `to_rle` takes them; or `Checked`.
      size: (height, width) that they must have; an empty list, and polygons, need it.

    Raises:
      ValueError: if they are malformed, or of another size; the message says which.
    """
    if hasattr(masks, "__array__"):
        masks = np.asarray(masks)
    if not isinstance(masks, np.ndarray | Checked | Mapping):
        segmentations = list(masks)
        if not segmentations and size is None:
            raise ValueError(
                "An empty list of masks has no size: pass {'size': (H, W), 'counts': []}."
            )
        own = check_size(to_rle(segmentations[0])["size"] if size is None else size)
        return Checked([to_rle(s, own)["counts"] for s in segmentations], own)
    if isinstance(masks, np.ndarray):
        if masks.ndim != 3:
            raise ValueError(f"Dense masks must have the shape [N, H, W], got {masks.shape}.")
        own = check_size(masks.shape[1:], "The masks' shape")
        checked = Checked([encode_mask(mask)["counts"] for mask in masks], own)
    elif isinstance(masks, Checked):
        checked = check(*masks)
    else:
        if not {"size", "counts"} <= masks.keys():
            raise ValueError(f"Columns of masks are 'size' and 'counts', got {list(masks)}.")
        if isinstance(masks["counts"], str | bytes):
            raise ValueError("Columns of masks need a list of counts; one RLE goes into a list.")
        checked = check(list(masks["counts"]), masks["size"])
    if size is not None and checked.size != check_size(size):
        raise ValueError(f"The masks' size {checked.size} disagrees with the image's {size}.")
    return checked


def check_size(size: Any, name: str = "size") -> tuple[int, int]:
    """Returns (height, width), or raises a ValueError if that is no image size."""
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


def run_lengths(counts: Sequence[bytes | str], size: Sequence[int]) -> Runs:
    """Parses and checks the compressed counts of N masks of one image.

    Args:
      counts: N compressed RLE strings.
      size: (height, width) of every mask.

    Raises:
      MalformedRLE: naming the first mask that is not an RLE of that size, and why.
    """
    height, width = check_size(size)
    encoded = _encoded(counts)
    if not encoded:
        return Runs(np.zeros(0, np.int64), np.zeros(1, np.int64))

    sizes = np.array([len(c) for c in encoded])
    ends = np.cumsum(sizes)
    group = np.frombuffer(b"".join(encoded), np.uint8) - np.uint8(48)
    if len(group) and group.max() > 63:  # a character below '0' wrapped around
        outside = np.flatnonzero(group > 63)
        raise MalformedRLE(int(np.searchsorted(ends, outside[0], "right")), OUTSIDE_ALPHABET)
    last = group < 32
    _refuse(np.flatnonzero(sizes == 0), TRUNCATED)
    _refuse(np.flatnonzero(~last[ends - 1]), TRUNCATED)

    last_char = np.flatnonzero(last)
    splits = np.append(0, np.searchsorted(last_char, ends))
    lengths = _undo_differences(_values(group, last_char, splits), splits[:-1])
    # int32 may overflow, but not before the first run that is outside of these bounds.
    if lengths.min() < 0 or lengths.max() > height * width:
        outside = np.flatnonzero((lengths < 0) | (lengths > height * width))
        reason = NEGATIVE_RUN if lengths[outside[0]] < 0 else WRONG_SUM
        _refuse(np.searchsorted(splits, outside, "right") - 1, reason)
    total = np.add.reduceat(lengths, splits[:-1], dtype=np.int64)
    _refuse(np.flatnonzero(total != height * width), WRONG_SUM)
    return Runs(lengths.astype(np.int64), splits)


def _encoded(counts: Sequence[bytes | str]) -> list[bytes]:
    encoded = [c.encode() if isinstance(c, str) else c for c in counts]
    if not all(isinstance(c, bytes) for c in encoded):
        raise ValueError("Compressed counts must be strings or bytes.")
    return encoded


def decode_rles(
    counts: Sequence[bytes | str],
    size: Sequence[int],
    output_size: Sequence[int] | None = None,
) -> np.ndarray:
    """Decodes N masks of one image, straight to `output_size`, on NumPy.

    The same result as `sa1b_tfds.decode_masks`: nearest, sampled at pixel centres, which is the
    full-size mask at rows floor((i + 0.5) * H / h) and columns floor((j + 0.5) * W / w).

    Args:
      counts: N compressed RLE strings.
      size: (H, W) of the masks.
      output_size: (h, w) of the result; default `size`.

    Returns:
      uint8 [N, h, w] of 0 and 1.

    Raises:
      MalformedRLE: naming the mask and the reason.
    """
    height, width = check_size(size)
    out_height, out_width = check_size(size if output_size is None else output_size, "output_size")
    lengths, splits = run_lengths(counts, size)
    n = len(counts)
    rows, columns = sampled(height, out_height), sampled(width, out_width)
    grid = columns if out_width <= width else np.unique(columns)  # a repeated one is drawn once

    # The full mask is never built: only the sampled columns exist, each a bit in rows of bytes.
    mask = np.repeat(np.arange(n), np.diff(splits))
    ends = np.cumsum(lengths) - mask * (height * width)
    x = ends // height
    right_of = np.searchsorted(grid, np.arange(width + 1), "right")  # grid columns up to x
    is_sampled = np.diff(right_of, prepend=0) > 0
    # At the top of a grid column stands the parity of the run ends to the left of it.
    to_the_left = np.bincount(right_of[x] + mask * (len(grid) + 1), minlength=n * (len(grid) + 1))
    top = np.cumsum(to_the_left.reshape(n, len(grid) + 1)[:, :-1], axis=1) & 1
    bits = np.empty((out_height + 1, n, -(-len(grid) // 8)), np.uint8)
    bits[0] = np.packbits(top.astype(np.uint8), axis=1)
    bits[1:] = 0
    # Below, each end of a run adds its column's bit or takes it away; nothing ever carries over.
    inside = np.flatnonzero(is_sampled[x])
    x, mask = x[inside], mask[inside]
    column = right_of[x] - 1
    y = ends[inside] - x * height
    row = np.searchsorted(rows, np.arange(height))[y]
    ends_ones = (inside - splits[mask]) % 2
    bit = np.uint8(128) >> (column % 8).astype(np.uint8)
    byte = (row * n + mask) * bits.shape[2] + column // 8
    np.add.at(bits.reshape(-1), byte, np.where(ends_ones, 0 - bit, bit))
    for above, below in itertools.pairwise(bits):  # 18 times as fast as np.add.accumulate
        np.add(above, below, out=below)
    packed = np.ascontiguousarray(bits[:-1].transpose(1, 0, 2))
    masks = np.unpackbits(packed, axis=2, count=len(grid))
    if len(grid) == out_width:
        return masks
    return np.take(masks, np.searchsorted(grid, columns), axis=2)


def sampled(length: int, n: int) -> np.ndarray:
    """The pixels at the centres of n equal parts of [0, length): int64 [n]."""
    return (2 * np.arange(n) + 1) * length // (2 * n)


def to_rle(segmentation: Any, size: Sequence[int] | None = None) -> dict[str, Any]:
    """Brings any COCO segmentation into compressed form, checked.

    Args:
      segmentation: {'size', 'counts'} with counts as str, bytes or a list of run lengths, or a list
        of polygons [x0, y0, x1, y1, ...] in pixels (whose union is the mask; needs `size`).
      size: (height, width) of the image; must agree with the segmentation's own.

    Returns:
      {'size': [height, width], 'counts': bytes}, as pycocotools has it.

    Raises:
      ValueError: if it is malformed, or its size disagrees with `size`; the message says which.
    """
    if not isinstance(segmentation, Mapping):
        return _from_polygons(segmentation, size)
    if "size" not in segmentation or "counts" not in segmentation:
        raise ValueError(f"An RLE needs 'size' and 'counts', got the keys {list(segmentation)}.")
    own = check_size(segmentation["size"])
    if size is not None and own != check_size(size):
        raise ValueError(f"The RLE's size {list(own)} disagrees with the image's {list(size)}.")
    counts = segmentation["counts"]
    if not isinstance(counts, bytes | str):
        counts = _compress(counts, own)
    elif isinstance(counts, str):
        counts = counts.encode()
    run_lengths([counts], own)
    return {"size": list(own), "counts": counts}


def decode_rle(segmentation: Any, size: Sequence[int] | None = None) -> np.ndarray:
    """Decodes one mask. Takes what `to_rle` takes and raises what it raises.

    Returns:
      uint8 [H, W] of 0 and 1.
    """
    return coco_mask.decode(to_rle(segmentation, size))


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encodes one mask [H, W], of any number type or bool; what is not zero is in the mask.

    Returns:
      {'size': [H, W], 'counts': bytes}, as `pycocotools.mask.encode` does.

    Raises:
      ValueError: if the mask is not two-dimensional or has no pixel.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"A mask must have the shape [H, W], got {list(mask.shape)}.")
    check_size(mask.shape, "The mask's shape")
    return coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))


def area(segmentation: Any, size: Sequence[int] | None = None) -> int:
    """The number of pixels in the mask. Takes what `to_rle` takes and raises what it raises."""
    rle = to_rle(segmentation, size)
    return int(areas(run_lengths([rle["counts"]], rle["size"]))[0])


def areas(runs: Runs) -> np.ndarray:
    """The pixels in each of N masks, int64 [N]."""
    ones = np.append(0, np.cumsum(runs.lengths * runs.is_one()))
    return ones[runs.splits[1:]] - ones[runs.splits[:-1]]


def bbox(segmentation: Any, size: Sequence[int] | None = None) -> list[float]:
    """The mask's box [x, y, w, h] in pixels, over inclusive pixels as in SA-1B; zeros if empty.

    Takes what `to_rle` takes and raises what it raises.
    """
    rle = to_rle(segmentation, size)
    (box,) = bboxes(run_lengths([rle["counts"]], rle["size"]), rle["size"])
    return [float(v) for v in box]


def bboxes(runs: Runs, size: Sequence[int]) -> np.ndarray:
    """The boxes of N masks of one size, int64 [N, 4], each as `bbox` has it."""
    height, width = check_size(size)
    boxes = np.zeros((len(runs.splits) - 1, 4), np.int64)
    kept = np.flatnonzero(runs.is_one() & (runs.lengths > 0))
    if not len(kept):
        return boxes
    mask = runs.mask()[kept]
    stop = np.cumsum(runs.lengths)[kept] - mask * (height * width) - 1
    x_start, y_start = np.divmod(stop + 1 - runs.lengths[kept], height)
    x_stop, y_stop = np.divmod(stop, height)
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
    """-> int32 [V], what the groups of each value say; `last_char` [V] is where its last one is.

    Nearly all have three groups at most: those are looked up, by 16 bits that fit the caches.
    """
    goes_on = group >> 5
    second = group * goes_on  # before the last one, if it belongs to the same value
    third = second[:-1] * goes_on[1:]
    key = group.astype(np.uint16)
    for back, groups in ((1, second), (2, third)):
        shifted = groups[:-1].astype(np.uint16) * np.uint16(1 << 5 * back)  # faster than <<
        np.bitwise_xor(key[back:], shifted, out=key[back:])
    values = _value_of_three_groups().take(key.take(last_char))
    ends = 3 + np.flatnonzero((goes_on[:-3] & goes_on[1:-2] & goes_on[2:-1]) > goes_on[3:])
    if len(ends):
        longer = np.searchsorted(last_char, ends)
        values[longer] = _value_of_more_groups(group, ends, splits, longer)
    return values


@functools.cache
def _value_of_three_groups() -> np.ndarray:
    """int32 [2**16], the value of each key: three groups with bit 15, else two with bit 10."""
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
    """-> int32, of each value that ends at `ends`, and is the one at `index` of all."""
    value = (group[ends].astype(np.int32) ^ 16) - 16
    more = np.ones(len(ends), bool)
    for back in range(1, _MAX_CHARS_PER_RUN + 1):
        before = group[ends - back]  # wraps around only where nothing goes on
        more &= (before >= 32) & (ends >= back)
        if not more.any():
            break
        if back == _MAX_CHARS_PER_RUN:
            _refuse(np.searchsorted(splits, index[more], "right") - 1, TOO_LONG)
        value = np.where(more, (value << 5) + (before & 31), value)
    return value


def _undo_differences(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Changes values [V] into lengths, of the same dtype; `first` [N] says where each mask begins.

    In each mask run 0 stands alone, and 1, 3, 5, ... and 2, 4, 6, ... are two chains of
    differences. All chains of all masks are summed at once, by the parity of the place among all
    values; where a chain begins, what was summed before is taken off.
    """
    stop = np.append(first[1:], len(values))
    has_run_2 = first[first + 2 < stop]
    values[has_run_2 + 2] -= values[has_run_2]
    for parity in (0, 1):
        part = np.ascontiguousarray(values[parity::2])  # np.cumsum is slow at every second one
        begins, ends = (first + 1 - parity) // 2, (stop + 1 - parity) // 2
        begins = begins[begins < ends]
        if len(begins):
            part[begins[1:]] -= np.add.reduceat(part, begins, dtype=part.dtype)[:-1]
        values[parity::2] = np.cumsum(part, dtype=part.dtype)
    return values


def _refuse(masks: np.ndarray, reason: str) -> None:
    if len(masks):
        raise MalformedRLE(int(masks[0]), reason)


def _compress(lengths: Any, size: tuple[int, int]) -> bytes:
    values = np.asarray(lengths)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu":
        raise ValueError("Uncompressed counts must be a list of integers.")
    if (values < 0).any():
        raise MalformedRLE(0, NEGATIVE_RUN)
    if sum(values.tolist()) != size[0] * size[1]:
        raise MalformedRLE(0, WRONG_SUM)
    return coco_mask.frPyObjects({"size": list(size), "counts": values.tolist()}, *size)["counts"]


def _from_polygons(polygons: Any, size: Sequence[int] | None) -> dict[str, Any]:
    if size is None:
        raise ValueError("A polygon has no size of its own: pass size=(height, width).")
    height, width = check_size(size)
    try:
        arrays = [np.asarray(polygon, np.float64) for polygon in polygons]
    except (TypeError, ValueError) as e:
        raise ValueError(f"A segmentation is an RLE or a list of polygons: {e}") from e
    for array in arrays:
        if array.ndim != 1 or len(array) < 6 or len(array) % 2 or not np.isfinite(array).all():
            raise ValueError("A polygon is a list [x0, y0, x1, y1, x2, y2, ...] of finite numbers.")
        # pycocotools trusts both: it overflows far outside, and takes memory for every edge pixel.
        corners = array.reshape(-1, 2)
        if np.abs(corners).max() > 2 * max(height, width):
            raise ValueError(f"A polygon reaches far out of the image of {height}x{width}.")
        steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
        if steps.sum() > height * width + 16 * (height + width):
            raise ValueError("A polygon's outline is longer than the image has pixels.")
    if not arrays:
        raise ValueError("A segmentation needs at least one polygon.")
    parts = coco_mask.frPyObjects([array.tolist() for array in arrays], height, width)
    return coco_mask.merge(parts)
