"""How prepared data comes to be in an object store, where no folder can be renamed.

    1. The staged shards are copied into the folder of the data. Other shards there, which a build
       that was killed has left, are removed.
    2. The metadata follow, which TFDS has written to a local folder, dataset_info.json last.

Without dataset_info.json there is no data for TFDS, nor for this package. So a build that is killed
before its last step leaves none, and the staged tars, from which the next build does it again.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from sa1b_tfds.core import stores
from sa1b_tfds.core.lock import FolderInUse

INFO = "dataset_info.json"
_LAST = ("features.json", INFO)  # TFDS looks for data by these
_SHARD = "-train."
_THREADS = 8  # they wait for the store


def is_published(folder: epath.Path) -> bool:
    """Whether a folder in an object store has all of its data."""
    return (folder / INFO).exists()


def refuse_in_store(folder: epath.Path, file_format: Any) -> None:
    """Raises a ValueError for what cannot be built in a folder of an object store.

    file_format: TFDS's, or its name.
    """
    if is_published(folder):
        raise ValueError(
            f"{folder} is in an object store, where data is not overwritten: remove it first, or"
            " name another data_dir."
        )
    if getattr(file_format, "value", file_format) == "array_record":
        raise ValueError(
            "array_record is written by a library that knows local files only, and"
            f" {folder} is in an object store: build tfrecord there, or build to a disk and copy"
            " the folder, dataset_info.json last."
        )


def copy_shards(staged: Sequence[epath.Path], shards: Sequence[epath.Path]) -> None:
    """Copies staged shards to their places in one folder, and removes other shards there.

    Raises:
      FolderInUse: if there is data, which another build has published meanwhile.
    """
    folder = shards[0].parent
    if is_published(folder):
        raise FolderInUse(f"Another build has finished {folder} meanwhile, so this one ends.")
    names = {shard.name for shard in shards}
    for path in folder.iterdir() if folder.exists() else ():
        if _SHARD in path.name and path.name not in names:
            path.unlink()
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(stores.copy, staged, shards))


@contextlib.contextmanager
def written_on_disk(version: epath.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Gives a local folder in place of the data's, and publishes what is in it if nothing fails.

    Gives another local folder as well, for what is not to stay.
    """
    root = version.parents[2]  # of the dataset, the config and the version
    with tempfile.TemporaryDirectory() as scratch:
        local = pathlib.Path(scratch) / "data"
        yield local / version.relative_to(root), pathlib.Path(scratch) / "downloads"
        publish(local, root)


def publish(local: pathlib.Path, root: epath.Path) -> None:
    """Copies the files below a local folder to below `root`; those that show data come last."""
    paths = [path for path in local.rglob("*") if path.is_file()]
    for path in sorted(paths, key=_turn):
        (root / path.relative_to(local)).write_bytes(path.read_bytes())


def _turn(path: pathlib.Path) -> tuple[int, str]:
    return _LAST.index(path.name) if path.name in _LAST else -1, str(path)
