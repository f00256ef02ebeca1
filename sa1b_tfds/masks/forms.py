"""All masks of an image, in whatever form callers have them -> RLEs, checked.

A stack of masks is an array [N, H, W] of NumPy, TensorFlow or PyTorch; columns {'size': (H, W),
'counts': N compressed RLEs}, as `tfds.decode.SkipDecoding()` gives them, in tensors or not;
`rle.Checked`, an example's masks; or a sequence whose items `rle.to_rle` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sa1b_tfds.masks import rle
from sa1b_tfds.masks.rle import Checked
from sa1b_tfds.masks.runs import MalformedRLE, check_size


def to_checked(masks: Any, size: Sequence[int] | None = None) -> Checked:
    """A stack of masks -> its compressed RLEs.

    Args:
      masks: see the module; of one size.
      size: (height, width) that they must have; an empty sequence, and polygons, need it.

    Raises:
      ValueError: if they are malformed, or of another size; the message says which.
    """
    checked = _stacked(masks)
    if checked is None:
        rles = _each(masks, size)
        if not rles and size is None:
            raise ValueError(
                "An empty list of masks has no size: pass {'size': (H, W), 'counts': []}."
            )
        own = check_size(rles[0]["size"] if rles else size)
        for i, mask in enumerate(rles):
            if tuple(mask["size"]) != own:
                raise ValueError(f"mask {i}: its size {mask['size']} disagrees with mask 0's.")
        checked = Checked([mask["counts"] for mask in rles], own)
    if size is not None and checked.size != check_size(size):
        raise ValueError(f"The masks' size {checked.size} disagrees with the image's {size}.")
    return checked


def to_rles(masks: Any) -> list[dict[str, Any]]:
    """A stack of masks -> RLEs in pycocotools' form, {'size': [H, W], 'counts': bytes}.

    Args:
      masks: see the module; without polygons. Sizes may differ in a sequence.

    Raises:
      ValueError: if one is no mask, naming its index.
    """
    checked = _stacked(masks)
    if checked is None:
        return _each(masks, None)
    return [{"size": list(checked.size), "counts": counts} for counts in checked.counts]


def _stacked(masks: Any) -> Checked | None:
    """The RLEs of what has one size by its form; None of a sequence."""
    if rle.is_array(masks):
        masks = np.asarray(masks)
        if masks.ndim != 3:
            raise ValueError(f"Dense masks must have the shape [N, H, W], got {masks.shape}.")
        size = check_size(masks.shape[1:], "The masks' shape")
        return Checked([mask["counts"] for mask in _each(masks, size)], size)
    if isinstance(masks, Checked):
        return rle.check(*masks)
    if isinstance(masks, Mapping):
        if not {"size", "counts"} <= masks.keys():
            raise ValueError(f"Columns of masks are 'size' and 'counts', got {list(masks)}.")
        counts, size = (_listed(masks[name]) for name in ("counts", "size"))
        if isinstance(counts, str | bytes):
            raise ValueError("Columns of masks need a list of counts; one RLE goes into a list.")
        return rle.check(list(counts), size)
    return None


def _listed(column: Any) -> Any:
    """What Python has for an array or a tensor."""
    return np.asarray(column).tolist() if rle.is_array(column) else column


def _each(masks: Any, size: Sequence[int] | None) -> list[dict[str, Any]]:
    """`rle.to_rle` of each mask; what it raises names the mask."""
    rles = []
    for i, mask in enumerate(masks):
        try:
            rles.append(rle.to_rle(mask, size))
        except MalformedRLE as e:
            raise ValueError(f"mask {i}: the RLE is malformed: {e.reason}") from e
        except ValueError as e:
            raise ValueError(f"mask {i}: {e}") from e
    return rles


def as_dense(mask: Any) -> np.ndarray:
    """One mask, [H, W] as `rle.to_binary` takes it, or an RLE -> bool [H, W].

    Raises:
      ValueError: if it is neither.
    """
    if isinstance(mask, Mapping):
        return rle.decode_rle(mask).astype(bool)
    return rle.to_binary(mask)


def require_one_size(a: Sequence[int], b: Sequence[int]) -> None:
    """Raises a ValueError if two sizes (height, width) differ."""
    if tuple(a) != tuple(b):
        raise ValueError("Masks of {}x{} and {}x{} cannot be compared.".format(*a, *b))
