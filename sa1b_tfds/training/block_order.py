"""The order in which an epoch takes images: tars are shuffled, then the images of each block.

A block is a number of consecutive images in the order of the shuffled tars. Its images lie together
in a tar or two, so a disk or a network file system reads in runs, and the memory of the order is
that of one block. The order depends on nothing but the seed, the epoch and the sizes of the tars:
any process can begin anywhere in it. Imports no TensorFlow.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.image_choice import hash_of


class BlockOrder:
    """The order of the images of some parts in each epoch.

    Random numbers are SplitMix64 and not NumPy's, whose streams may change from one version to the
    next: a state that was saved must mean the same images later.
    """

    def __init__(self, names: Sequence[str], counts: Sequence[int], block_size: int, seed: int):
        """Sets the order.

        Args:
          names: of the parts: tars, folders or shards.
          counts: the number of images of each part. An image's number counts through all of them.
          block_size: the images of a block. 0 keeps the order of the files in every epoch.
          seed: of the order.
        """
        self._counts = np.array(counts, np.int64)
        self._block_size = block_size
        self._seed = seed
        self._parts = zlib.crc32(repr([*zip(names, map(int, counts), strict=True)]).encode())
        self._last: tuple[tuple[int, int], np.ndarray] | None = None

    def __len__(self) -> int:
        return int(self._counts.sum())

    def image(self, epoch: int, place: int) -> int:
        """Returns the number of the image at a place, 0 <= place < len(self), of an epoch."""
        if not self._block_size:
            return place
        number, offset = divmod(place, self._block_size)
        last = self._last  # one read, as threads share this
        if last is None or last[0] != (epoch, number):
            last = self._last = ((epoch, number), self._block(epoch, number))
        return int(last[1][offset])

    def fingerprint(self) -> dict[str, int]:
        """What a state holds, so that it is not restored for other data or another order."""
        return {
            "seed": self._seed,
            "block_size": self._block_size,
            "images": len(self),
            "parts": self._parts,
        }

    def check(self, state: Any) -> None:
        """Raises a ValueError if a state is none, or belongs to other data or another order."""
        own = self.fingerprint()
        if not isinstance(state, dict) or not own.keys() <= state.keys():
            raise ValueError(f"This is no state of a loader of sa1b_tfds: {state!r}.")
        for name in ("seed", "block_size"):
            if state[name] != own[name]:
                raise ValueError(
                    f"The state was saved with {name}={state[name]}, and this loader has"
                    f" {own[name]}: images would be lost or come twice. Use the same."
                )
        if state["images"] != own["images"] or state["parts"] != own["parts"]:
            raise ValueError(
                f"The state was saved for {counted(state['images'], 'image')}, and this loader has"
                f" {counted(own['images'], 'image')} or other tars: images would be lost or come"
                " twice. Read the same tars or shards, or begin a new epoch without the state."
            )

    def _block(self, epoch: int, number: int) -> np.ndarray:
        """int64 [N], the numbers of the images of a block, shuffled."""
        key = hash_of(hash_of(np.array([self._seed])) + np.uint64(epoch))
        parts = np.argsort(hash_of(key + np.arange(len(self._counts), dtype=np.uint64)))
        ends = np.cumsum(self._counts[parts])
        start = number * self._block_size
        places = np.arange(start, min(start + self._block_size, len(self)))
        part = np.searchsorted(ends, places, "right")
        first = (np.cumsum(self._counts) - self._counts)[parts]
        images = first[part] + places - (ends[part] - self._counts[parts][part])
        # Another key than that of the parts, or both would be sorted by the same hashes.
        return images[np.argsort(hash_of(hash_of(key) + places.astype(np.uint64)))]
