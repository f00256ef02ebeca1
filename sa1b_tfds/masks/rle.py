"""COCO run-length encoding (RLE) in NumPy and pycocotools: encode, decode, convert, measure.

This module owns the conventions that the rest of the package refers to:

* **RLE.** A mask [H, W] is read column by column (Fortran order) and stored as the lengths of its
  runs, which alternate 0, 1, 0, ... and start with zeros. In compressed `counts` each length is
  written in groups of 5 bits, lowest first, one character (48 + group, +32 while more follow) a
  group; the last group is signed. From the fourth run on the difference to the run two before is
  written. This is the format of pycocotools (`cocoapi/common/maskApi.c`).
* **bbox.** XYWH in pixels, as SA-1B has it: over *inclusive* pixels, so that w = x_max - x_min.
  It is one less than `pycocotools.mask.toBbox` in width and height.

No TensorFlow here. `sa1b_tfds.masks.runs` reads and checks every RLE first.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from sa1b_tfds.masks.runs import (
    NEGATIVE_RUN,
    WRONG_SUM,
    MalformedRLE,
    areas,
    as_bytes,
    bboxes,
    check_size,
    run_lengths,
)


class Checked(NamedTuple):
    """N compressed RLEs of one image that `check` found well-formed.

    counts: of each of the N masks.
    size: (height, width) of every mask.
    """

    counts: list[bytes]
    size: tuple[int, int]


def check(counts: Sequence[bytes | str], size: Sequence[int]) -> Checked:
    """Checks N compressed RLEs of one image; raises what `run_lengths` raises."""
    encoded = as_bytes(counts)
    run_lengths(encoded, size)
    return Checked(encoded, check_size(size))


def to_checked(masks: Any, size: Sequence[int] | None = None) -> Checked:
    """Brings the masks of one image, in any form, into compressed RLE, checked.

    Args:
      masks: a dense array [N, H, W] of NumPy, TensorFlow or PyTorch; columns {'size': (H, W),
        'counts': N compressed strings}; a list whose items are of one size, each as `to_rle` takes
        it; or `Checked`.
      size: (height, width) that they must have; an empty list, and polygons, need it.

    Raises:
      ValueError: if they are malformed, or of another size; the message says which.
    """
    if is_array(masks):
        masks = np.asarray(masks)
        if masks.ndim != 3:
            raise ValueError(f"Dense masks must have the shape [N, H, W], got {masks.shape}.")
        own = check_size(masks.shape[1:], "The masks' shape")
        checked = Checked([encode_mask(mask)["counts"] for mask in masks], own)
    elif isinstance(masks, Checked):
        checked = check(*masks)
    elif isinstance(masks, Mapping):
        if not {"size", "counts"} <= masks.keys():
            raise ValueError(f"Columns of masks are 'size' and 'counts', got {list(masks)}.")
        if isinstance(masks["counts"], str | bytes):
            raise ValueError("Columns of masks need a list of counts; one RLE goes into a list.")
        checked = check(list(masks["counts"]), masks["size"])
    else:
        rles = to_rles(masks, size)
        if not rles and size is None:
            raise ValueError(
                "An empty list of masks has no size: pass {'size': (H, W), 'counts': []}."
            )
        checked = Checked(
            [rle["counts"] for rle in rles], check_size(rles[0]["size"] if rles else size)
        )
        for i, rle in enumerate(rles):
            if tuple(rle["size"]) != checked.size:
                raise ValueError(f"mask {i}: its size {rle['size']} disagrees with mask 0's.")
    if size is not None and checked.size != check_size(size):
        raise ValueError(f"The masks' size {checked.size} disagrees with the image's {size}.")
    return checked


def to_rles(masks: Any, size: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """`to_rle` of each mask. Raises what it raises, naming the mask; sizes may differ."""
    rles = []
    for i, mask in enumerate(masks):
        try:
            rles.append(to_rle(mask, size))
        except MalformedRLE as e:
            raise ValueError(f"mask {i}: the RLE is malformed: {e.reason}") from e
        except ValueError as e:
            raise ValueError(f"mask {i}: {e}") from e
    return rles


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
    """Brings one mask, in any form, into compressed RLE, checked.

    Args:
      segmentation: one of
        * {'size', 'counts'} with counts as str, bytes or a list of run lengths;
        * {'segmentation': any of these, ...}, as COCO's annotations and the records of
          `SamAutomaticMaskGenerator` have it; what else is in it is not looked at;
        * a mask [H, W], as `encode_mask` takes it. As nested lists it must be of the size `size`
          and hold only 0 and 1, or be what cannot be polygons;
        * a list of polygons [x0, y0, x1, y1, ...] in pixels, whose union is the mask; it needs
          `size`.
      size: (height, width) of the image; must agree with the segmentation's own.

    Returns:
      {'size': [height, width], 'counts': bytes}, as pycocotools has it.

    Raises:
      ValueError: if it is malformed, may be a mask as well as polygons, or its size disagrees with
        `size`; the message says which.
    """
    if is_array(segmentation):
        rle = encode_mask(segmentation)
        if size is not None and tuple(rle["size"]) != check_size(size):
            raise ValueError(
                f"A mask as an array must have the image's size {list(size)}, got {rle['size']}."
                " A polygon is a list [x0, y0, x1, y1, ...]."
            )
        return rle
    if not isinstance(segmentation, Mapping):
        return _from_lists(segmentation, size)
    if "segmentation" in segmentation:
        return to_rle(segmentation["segmentation"], size)
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
    """Decodes one mask; raises what `to_rle` raises.

    Args:
      segmentation, size: see `to_rle`.

    Returns:
      uint8 [H, W] of 0 and 1.
    """
    return coco_mask.decode(to_rle(segmentation, size))


def encode_mask(mask: Any) -> dict[str, Any]:
    """Encodes one mask; raises what `to_binary` raises.

    Args:
      mask: a dense mask [H, W], as `to_binary` takes it.

    Returns:
      {'size': [H, W], 'counts': bytes}, as `pycocotools.mask.encode` does.
    """
    inside = to_binary(mask)
    check_size(inside.shape, "The mask's shape")
    return coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))


def to_binary(mask: Any) -> np.ndarray:
    """The pixels in one dense mask: bool [H, W].

    Args:
      mask: [H, W] of bool or integers, what is not zero is inside; or of floats, 0 and one other
        whole number such as 1 or 255. Of NumPy, TensorFlow, PyTorch or PIL.

    Raises:
      ValueError: if it is of another shape or holds other values, such as logits or probabilities.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"A mask must have the shape [H, W], got {list(mask.shape)}.")
    if mask.dtype.kind not in "biuf":
        raise ValueError(f"A mask must hold numbers, got {mask.dtype}.")
    inside = mask != 0
    if mask.dtype.kind == "f" and inside.any():
        value = mask[inside][0]
        if value % 1 != 0 or (mask[inside] != value).any():
            raise ValueError(
                "A mask of floats must hold only 0 and 1 (or another whole number): compare logits"
                " or probabilities with a threshold first."
            )
    return inside


def is_array(value: Any) -> bool:
    """Whether NumPy sees an array in it: one of NumPy, TensorFlow, PyTorch, or a PIL image."""
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def area(segmentation: Any, size: Sequence[int] | None = None) -> int:
    """The number of pixels in the mask. Takes what `to_rle` takes and raises what it raises."""
    rle = to_rle(segmentation, size)
    return int(areas(run_lengths([rle["counts"]], rle["size"]))[0])


def bbox(segmentation: Any, size: Sequence[int] | None = None) -> list[float]:
    """The mask's box [x, y, w, h] in pixels, over inclusive pixels as in SA-1B; zeros if empty.

    Takes what `to_rle` takes and raises what it raises.
    """
    rle = to_rle(segmentation, size)
    (box,) = bboxes(run_lengths([rle["counts"]], rle["size"]), rle["size"])
    return [float(v) for v in box]


def _compress(lengths: Any, size: tuple[int, int]) -> bytes:
    values = np.asarray(lengths)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu":
        raise ValueError("Uncompressed counts must be a list of integers.")
    if (values < 0).any():
        raise MalformedRLE(0, NEGATIVE_RUN)
    if sum(values.tolist()) != size[0] * size[1]:
        raise MalformedRLE(0, WRONG_SUM)
    return coco_mask.frPyObjects({"size": list(size), "counts": values.tolist()}, *size)["counts"]


_MAX_SIMPLE = 10  # numbers of a closed polygon whose corners have only two coordinates


def _from_lists(lists: Any, size: Sequence[int] | None) -> dict[str, Any]:
    """A mask [H, W] as nested lists, or polygons; refused if it may be both."""
    try:
        rows = [np.asarray(row) for row in lists]
        values = np.concatenate(rows)
    except (TypeError, ValueError):
        return _from_polygons(lists, size)  # says what is wrong
    lengths = {len(row) for row in rows}
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        return _from_polygons(lists, size)
    distinct = np.unique(values)
    may_be_polygons = all(n >= 6 and n % 2 == 0 for n in lengths) and not (
        len(distinct) <= 2 and max(lengths) > _MAX_SIMPLE
    )
    shape = [len(rows), *lengths]
    may_be_mask = len(shape) == 2 and (size is None or tuple(shape) == check_size(size))
    if may_be_mask and (
        not may_be_polygons or (size is not None and np.isin(distinct, (0, 1)).all())
    ):
        return encode_mask(np.stack(rows))
    if may_be_mask and size is not None:
        raise ValueError(
            f"{shape[0]} lists of {shape[1]} numbers are a mask of the image's size or polygons:"
            " pass a mask as an array, or repeat the last corner of each polygon."
        )
    if not may_be_polygons and len(shape) == 2 and min(shape) > 1:
        raise ValueError(
            f"{shape[0]} lists of {shape[1]} numbers are neither a mask of the image's size"
            f" {size} nor polygons [x0, y0, x1, y1, x2, y2, ...]."
        )
    return _from_polygons(lists, size)


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
