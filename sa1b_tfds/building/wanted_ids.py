"""Which images a build takes, if not all: their ids, beside the staged tars, for every worker.

A task has only the fingerprint of the ids, because there may be millions of them and a thousand
tasks. The fingerprint is one of the settings that shards depend on.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.core import files
from sa1b_tfds.examples.id_set import IdSet, id_of_name
from sa1b_tfds.tars.name_ids import ids_of_entries
from sa1b_tfds.tars.pairs import Entry


def keep_wanted(staging: Staging, ids: IdSet) -> None:
    """Writes the ids into the staging folder, unless they are there."""
    try:
        read_wanted(staging, ids.fingerprint)
    except FileNotFoundError:
        files.write_whole(_path(staging, ids.fingerprint), ids.to_bytes())


def read_wanted(staging: Staging, fingerprint: str | None) -> IdSet | None:
    """Reads the ids of a fingerprint; None if there is none, which means all images.

    Raises:
      FileNotFoundError: if they are not there, or damaged.
    """
    return None if fingerprint is None else _read(_path(staging, fingerprint), fingerprint)


def may_be_wanted(entries: Sequence[Entry], wanted: IdSet | None) -> Sequence[Entry]:
    """Leaves out pairs whose names have an id that is not wanted."""
    if wanted is None:
        return entries
    ids = ids_of_entries(entries)
    return [entries[int(i)] for i in np.flatnonzero((ids < 0) | wanted.has(ids))]


def missing_ids_of(tars: Iterable[FinishedTar], wanted: IdSet | None) -> np.ndarray:
    """int64: the wanted ids that no tar has. An image that is reported as a problem is there."""
    none = np.empty(0, np.int64)
    if wanted is None:
        return none
    tars = list(tars)
    named = [id_of_name(problem.member) for tar in tars for problem in tar.problems]
    reported = np.array([image_id for image_id in named if image_id is not None], np.int64)
    return wanted.not_in(np.concatenate([none, reported, *(tar.image_ids for tar in tars)]))


def refuse_other_ids(path: epath.Path, tars: Iterable[FinishedTar], ids: IdSet) -> None:
    """Raises a ValueError if the prepared data in a folder was made with other ids."""
    if any(tar.settings.get("image_ids") != ids.fingerprint for tar in tars):
        raise ValueError(
            f"{path} was built with other image ids than these {len(ids):,}: name another data_dir,"
            " or remove it."
        )


def _path(staging: Staging, fingerprint: str) -> epath.Path:
    return staging.folder / f"image_ids.{fingerprint}"


@functools.lru_cache(maxsize=1)
def _read(path: epath.Path, fingerprint: str) -> IdSet:
    with contextlib.suppress(OSError, ValueError):
        ids = IdSet.from_bytes(path.read_bytes())
        if ids.fingerprint == fingerprint:
            return ids
    raise FileNotFoundError(f"{path} is not there, or damaged: build again.")
