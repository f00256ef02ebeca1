"""Which images of a source to take: those of a list of ids, and those of one part of a hold-out.

The part of an image depends on its id alone. So it is the same in tf.data, PyTorch and an export,
and it stays when tars are added. `training/chosen.py` has the same in TensorFlow ops.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np

from sa1b_tfds.examples.id_set import IdSet

HoldoutPart = Literal["train", "val"]

# SplitMix64 (Steele, Lea and Flood 2014): each bit of the result depends on each bit of the id. A
# step x ^= x >> shift comes before each factor, and one after the last.
INCREMENT = 0x9E3779B97F4A7C15
STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageChoice:
    """Which images to take.

    ids: take only these. None takes all.
    holdout: the share of images in the part 'val', from 0 to 1. 0 makes no parts.
    holdout_part: the part to take.

    Raises:
      ValueError, TypeError: if holdout or holdout_part is invalid.
    """

    ids: IdSet | None = None
    holdout: float = 0.0
    holdout_part: HoldoutPart = "train"

    def __post_init__(self) -> None:
        check_holdout(self.holdout, self.holdout_part)

    @property
    def takes_all(self) -> bool:
        return self.ids is None and not self.holdout

    @property
    def threshold(self) -> int:
        """The high 32 bits of the hash of an image are below it in the part 'val' only."""
        return round(self.holdout * 2**32)

    def has(self, image_ids: np.ndarray) -> np.ndarray:
        """bool [N]: which images of int64 [N] to take."""
        taken = np.ones(len(image_ids), bool)
        if self.ids is not None:
            taken &= self.ids.has(image_ids)
        if self.holdout:
            in_val = (hash_of(image_ids) >> np.uint64(32)).astype(np.int64) < self.threshold
            taken &= in_val == (self.holdout_part == "val")
        return taken

    def takes(self, image_id: int) -> bool:
        return self.takes_all or bool(self.has(np.array([image_id]))[0])

    def settings(self) -> dict[str, Any]:
        """What tells this choice from others, for JSON; empty if it takes all."""
        chosen: dict[str, Any] = {}
        if self.ids is not None:
            chosen["image_ids"] = self.ids.fingerprint
        if self.holdout:
            chosen |= {"holdout": self.holdout, "holdout_part": self.holdout_part}
        return chosen


def hash_of(image_ids: np.ndarray) -> np.ndarray:
    """uint64 [N], a hash of int64 [N] ids."""
    mixed = image_ids.astype(np.uint64) + np.uint64(INCREMENT)
    for shift, factor in STEPS:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(LAST_SHIFT))


def check_holdout(holdout: float, holdout_part: HoldoutPart) -> None:
    """Raises a ValueError or TypeError that names the field which is invalid."""
    if isinstance(holdout, bool) or not isinstance(holdout, int | float):
        raise TypeError(f"holdout must be a number, got {holdout!r}.")
    if not 0 <= holdout <= 1:
        raise ValueError(f"holdout must be 0 to 1, got {holdout!r}.")
    if holdout_part not in get_args(HoldoutPart):
        raise ValueError(
            f"holdout_part must be one of {get_args(HoldoutPart)}, got {holdout_part!r}."
        )
    if holdout_part == "val" and not holdout:
        raise ValueError("holdout must be above 0 with holdout_part='val', which is empty else.")
