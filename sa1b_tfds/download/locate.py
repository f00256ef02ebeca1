"""Image ids -> the tars that hold them: exactly, from indexes and a list, or as an estimate."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.core.processes import Processes, available_cores
from sa1b_tfds.download.tars_of_ids import KnownTars, estimate, joined
from sa1b_tfds.examples.id_set import IdSet
from sa1b_tfds.tars.archive import Archive, number_of
from sa1b_tfds.tars.index import kept_count
from sa1b_tfds.tars.name_ids import ids_in_archive
from sa1b_tfds.tars.names import tar_name, tar_number

_NO_IDS = np.empty(0, np.int64)
_NOTHING = KnownTars(_NO_IDS, _NO_IDS)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """Where the images of a list are.

    Attributes:
      indexed: how many of them each tar has that is there, by the tar's name.
      listed: how many of them the user's list has, by the tar's name.
      estimated: how many of them are located by an estimate.
      may_hold: the names of the tars of the estimate.
      missing: int64, ids that no tar has, or can have.
      without_link: int64, ids of which every tar is neither there nor among the links.
      problems: what is wrong in the tars that are there.
      unnamed: how many images of these tars have no id in their names, so that they were not
        looked at.
    """

    indexed: Mapping[str, int]
    listed: Mapping[str, int]
    estimated: int
    may_hold: Sequence[str]
    missing: np.ndarray
    without_link: np.ndarray
    problems: Sequence[BadInput]
    unnamed: int

    @property
    def names(self) -> list[str]:
        """The tars that hold the images, or may, by name."""
        return sorted({*self.indexed, *self.listed, *self.may_hold})


def locate(
    ids: IdSet,
    archives: Sequence[Archive] = (),
    known: KnownTars = _NOTHING,
    linked: Collection[str] | None = None,
) -> Located:
    """Finds the tars that hold images.

    Tars that are there say by their indexes which images they have. Those without a kept index are
    indexed only if the estimate names them, or if an image is in no other tar: for a compressed tar
    this takes a core a minute.

    Args:
      ids: of the images.
      archives: the tars, or extracted folders, that are there.
      known: images and their tars, from a list of the user.
      linked: the names of tars that have a link. None: each tar of SA-1B has one.

    Returns:
      Where they are.
    """
    there = _There(ids)
    first, last = estimate(ids.ids, known)
    near = _in_ranges(first, last)
    soon = [a for a in archives if number_of(a) in (None, *near) or kept_count(a) is not None]
    there.look_into(soon)
    rest = [a for a in archives if a not in soon]
    result = _joined(there, known, linked, rest)
    if rest and len(result.missing):
        there.look_into(rest)
        result = _joined(there, known, linked, ())
    return result


class _There:
    """Which of the images are in tars that are there."""

    def __init__(self, ids: IdSet):
        self._ids = ids
        self._found = np.zeros(len(ids), bool)
        self.indexed: dict[str, int] = {}
        self.numbers: set[int] = set()  # of tars that have no other images
        self.known: list[KnownTars] = []
        self.problems: list[BadInput] = []
        self.unnamed = 0

    @property
    def left(self) -> np.ndarray:
        """int64, ascending: the ids that no tar has so far."""
        return self._ids.ids[~self._found]

    def look_into(self, archives: Sequence[Archive]) -> None:
        if not archives:
            return
        with Processes(min(available_cores(), len(archives))) as processes:
            futures = [processes.submit(_ids_of, archive) for archive in archives]
            bar = tqdm(futures, "reading indexes", unit="tar", disable=not sys.stderr.isatty())
            for archive, future in zip(archives, bar, strict=True):
                self._add(archive, *future.result())

    def _add(self, archive: Archive, ids: np.ndarray, problems: Sequence[BadInput]) -> None:
        self.problems += problems
        self.unnamed += int((ids < 0).sum())
        ids = ids[ids >= 0]
        number = number_of(archive)
        if number is not None:
            if not any(isinstance(problem, TornArchive) for problem in problems):
                self.numbers.add(number)  # what a torn tar does not show may be in its other part
            if len(ids):
                ends = np.array([ids.min(), ids.max()])
                self.known.append(KnownTars.of(ends, np.array([number, number])))
        places = np.unique(np.searchsorted(self._ids.ids, ids[self._ids.has(ids)]))
        places = places[~self._found[places]]
        if len(places):
            base = archive.name.rpartition("/")[2]
            name = base if number is None else tar_name(number)
            self.indexed[name] = self.indexed.get(name, 0) + len(places)
            self._found[places] = True


def _ids_of(archive: Archive) -> tuple[np.ndarray, list[BadInput]]:
    """Runs in a process."""
    problems = Problems("skip")
    with os_errors_named(archive.name):
        return ids_in_archive(archive, problems), problems.found


def _joined(
    there: _There, known: KnownTars, linked: Collection[str] | None, unread: Sequence[Archive]
) -> Located:
    """What is known of the tars that were looked into; `unread` are there and were not."""
    of_list = known.tar_of(there.left)
    # The index of a tar is better than what a list says about it.
    is_listed = (of_list >= 0) & ~np.isin(of_list, list(there.numbers))
    reached = {number for number in map(number_of, unread) if number is not None}
    if linked is not None:
        reached |= {number for number in map(tar_number, linked) if number is not None}
    listed_ids, listed_tars = there.left[is_listed], of_list[is_listed]
    has_link = _among(listed_tars, reached, linked)
    listed_names, counts = np.unique(listed_tars[has_link], return_counts=True)

    rest = there.left[~is_listed]
    first, last = estimate(rest, joined([known, *there.known]))
    possible, reachable = np.zeros(len(rest), bool), np.zeros(len(rest), bool)
    numbers: set[int] = set()
    for step in range(int(np.max(last - first, initial=-1)) + 1):
        number = first + step
        can = (number <= last) & ~np.isin(number, list(there.numbers))
        takes = can & _among(number, reached, linked)
        possible |= can
        reachable |= takes
        numbers |= set(np.unique(number[takes]).tolist())
    return Located(
        indexed=there.indexed,
        listed={
            tar_name(int(n)): int(count) for n, count in zip(listed_names, counts, strict=True)
        },
        estimated=int(reachable.sum()),
        may_hold=[tar_name(number) for number in sorted(numbers)],
        missing=rest[~possible],
        without_link=np.sort(np.concatenate([rest[possible & ~reachable], listed_ids[~has_link]])),
        problems=there.problems,
        unnamed=there.unnamed,
    )


def _among(numbers: np.ndarray, some: set[int], linked: Collection[str] | None) -> np.ndarray:
    if linked is None:
        return np.ones(len(numbers), bool)
    return np.isin(numbers, list(some))


def _in_ranges(first: np.ndarray, last: np.ndarray) -> list[int]:
    """The numbers in any of the ranges, each once."""
    begins, ends = (np.bincount(x[first <= last]) for x in (first, last + 1))
    length = max(len(begins), len(ends))
    change = np.pad(begins, (0, length - len(begins))) - np.pad(ends, (0, length - len(ends)))
    return np.flatnonzero(np.cumsum(change) > 0).tolist()
