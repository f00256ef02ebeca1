"""How prepared data comes to be in an object store, where no folder can be renamed.

    1. The staged shards are copied into the folder of the data. Other shards there, which a build
       that was killed has left, are removed.
    2. The metadata follow, which TFDS has written to a local folder, dataset_info.json last.

Without dataset_info.json there is no data for TFDS, nor for this package. So a build that is killed
before its last step leaves none, and the staged tars, from which the next build does it again.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

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


def publish(local: pathlib.Path, root: epath.Path) -> None:
    """Copies the files below a local folder to below `root`; those that show data come last."""
    paths = [path for path in local.rglob("*") if path.is_file()]
    for path in sorted(paths, key=_turn):
        (root / path.relative_to(local)).write_bytes(path.read_bytes())


def _turn(path: pathlib.Path) -> tuple[int, str]:
    return _LAST.index(path.name) if path.name in _LAST else -1, str(path)
