"""Which tars may hold an image, by its id: an estimate, because Meta publishes no list of this.

Ids grow from tar to tar, with gaps. Users have published the first id of some tars (`FIRST_IDS`).
These lie on a line, at most 15 ids below it. The line also fits what is known of the whole: 1,000
tars reach the id 11,188,200, and SA-1B has 11,185,362 images. Between and beyond the known tars
nothing proves the line, so the tars on both sides of the estimated one are included.

More is known if some images and their tars are: an image cannot be in an earlier tar than an image
with a smaller id, nor in a later one than an image with a larger id.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np
from etils import epath

from sa1b_tfds.core.text import printable
from sa1b_tfds.examples.id_set import id_of_name
from sa1b_tfds.tars.names import is_tar_name, tar_number

FIRST_IDS: Mapping[int, int] = {
    0: 1,
    14: 156_625,
    15: 167_811,
    16: 179_000,
    17: 190_188,
    18: 201_376,
    19: 212_562,
    20: 223_750,
}
IDS_PER_TAR = 11_188.2
NUM_TARS = 1000
_NEIGHBOURS = 1
_NO_LIMIT = 2**62
_SEPARATOR = re.compile(r"[\s,;]+")


@dataclasses.dataclass(frozen=True, eq=False)
class KnownTars:
    """Images of which the tar is known.

    ids: int64 [N], ascending.
    tars: int64 [N], the number of the tar of each.
    """

    ids: np.ndarray
    tars: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, tars: np.ndarray) -> KnownTars:
        order = np.argsort(ids, kind="stable")
        return cls(ids[order].astype(np.int64), tars[order].astype(np.int64))

    def tar_of(self, ids: np.ndarray) -> np.ndarray:
        """int64 [M], the number of the tar of each image; -1 where it is not known."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, self.tars[place], -1)


def estimate(ids: np.ndarray, known: KnownTars) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last tar that may hold each image.

    Args:
      ids: int64 [M].
      known: images whose tars limit those of their neighbours.

    Returns:
      Two arrays, int64 [M]. Where the first is larger than the last, no tar of SA-1B holds it.
    """
    on_line = np.floor((ids - 1) / IDS_PER_TAR).astype(np.int64)
    first, last = on_line - _NEIGHBOURS, on_line + _NEIGHBOURS
    low, high = _limits(ids, KnownTars.of(*_with_table(known)))
    # Where what is known contradicts the order of ids, as for own tars with such names, the line is
    # all there is. Where it contradicts the line, it is right.
    in_order = low <= high
    meets = in_order & (np.maximum(first, low) <= np.minimum(last, high))
    first = np.where(meets, np.maximum(first, low), np.where(in_order, low, first))
    last = np.where(meets, np.minimum(last, high), np.where(in_order, high, last))
    return np.maximum(first, 0), np.minimum(last, NUM_TARS - 1)


def read_known(path: epath.PathLike) -> KnownTars:
    """Reads a list of images and their tars: on each line an id and a tar, each a number or a name.

    They are separated by a comma, a tab or spaces. The first line may be a header.

    Raises:
      ValueError: naming the file and the line, if a line is not an id and a tar.
    """
    path = epath.Path(path)
    ids, tars = [], []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        fields = _SEPARATOR.split(line.strip("\ufeff \t,;"))
        if fields == [""]:
            continue
        image_id = id_of_name(fields[0])
        tar = _number_of(fields[1]) if len(fields) == 2 else None
        if image_id is not None and tar is not None:
            ids.append(image_id)
            tars.append(tar)
        elif number > 1 or image_id is not None:
            raise ValueError(
                f"{path}: line {number}: '{printable(line)[:60]}' is not an image id and a tar,"
                " such as '223750 sa_000020.tar'."
            )
    if not ids:
        raise ValueError(f"{path} holds no image id and its tar, such as '223750 sa_000020.tar'.")
    return KnownTars.of(np.array(ids, np.int64), np.array(tars, np.int64))


def joined(some: Iterable[KnownTars]) -> KnownTars:
    """All that several of them know."""
    some = list(some)
    none = np.empty(0, np.int64)
    return KnownTars.of(
        np.concatenate([none, *(known.ids for known in some)]),
        np.concatenate([none, *(known.tars for known in some)]),
    )


def _with_table(known: KnownTars) -> tuple[np.ndarray, np.ndarray]:
    numbers, ids = (np.array(list(x), np.int64) for x in (FIRST_IDS, FIRST_IDS.values()))
    # Before the first id of a tar, all are in earlier tars.
    before = numbers > 0
    return (
        np.concatenate([known.ids, ids, ids[before] - 1]),
        np.concatenate([known.tars, numbers, numbers[before] - 1]),
    )


def _limits(ids: np.ndarray, known: KnownTars) -> tuple[np.ndarray, np.ndarray]:
    """The last known tar of smaller ids, and the first known one of larger ids."""
    lows = np.concatenate([[0], np.maximum.accumulate(known.tars)])
    highs = np.concatenate([np.minimum.accumulate(known.tars[::-1])[::-1], [_NO_LIMIT]])
    return (
        lows[np.searchsorted(known.ids, ids, "right")],
        highs[np.searchsorted(known.ids, ids, "left")],
    )


def _number_of(text: str) -> int | None:
    """The number of a tar: 20 for '20', 'sa_000020', 'sa_000020.tar' and paths of it."""
    base = text.replace("\\", "/").rpartition("/")[2]
    if base.isascii() and base.isdecimal():
        return int(base) if len(base) < 7 else None
    return tar_number(base if is_tar_name(base) else f"{base}.tar")
