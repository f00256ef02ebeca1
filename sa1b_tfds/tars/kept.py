"""Files kept of a tar, its index and its seek points, so that they are found only once.

A kept file is beside the tar as `.<name>.<kind>`. If that folder cannot be written, it is in
`$XDG_CACHE_HOME/sa1b_tfds` (default `~/.cache/sa1b_tfds`). Nothing relies on it: each reader
compares the tar's `stamp` and a checksum, and makes the kept file again if they are wrong.

Where the records of a shard in an object store end (`examples/record_ends.py`) is kept in the cache
folder only: those who train may not be allowed to write to the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from typing import TypeVar

from absl import logging
from etils import epath

from sa1b_tfds.core import files

INDEX, SEEK, ENDS = "index", "seek", "ends"

_Content = TypeVar("_Content")


def stamp_of(tar: epath.Path) -> tuple[int, int]:
    """Returns a tar's size in bytes and its time of change in ns, as exact as its storage has them.

    Raises:
      FileNotFoundError: if it is not there.
    """
    if files.is_local(tar):
        stat = os.stat(tar)
        return stat.st_size, stat.st_mtime_ns
    told = files.stat_of(tar)
    return told.bytes, told.modified * 10**9


def load(tar: epath.Path, kind: str, parse: Callable[[epath.Path], _Content]) -> _Content | None:
    """Returns what `parse` returns for the first usable file; None if there is none.

    `parse` raises a ValueError, TypeError or KeyError if the file is not valid.
    """
    for path in _paths(tar, kind):
        try:
            return parse(path)
        except (ValueError, TypeError, KeyError) as e:
            logging.info("%s is not valid and is made again: %s", path, e)
        except Exception:  # missing, not readable, or in a storage that cannot be reached
            continue
    return None


def keep(tar: epath.Path, kind: str, content: bytes) -> bool:
    """Writes a kept file to the first place that can be written; returns whether there was one."""
    for path in _paths(tar, kind):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, content)
        except Exception as e:  # each storage raises its own errors, and a kept file is optional
            logging.info("The %s of %s cannot be kept in %s: %s", kind, tar.name, path, e)
        else:
            return True
    return False


def forget_all(tar: epath.Path) -> None:
    """Removes all kept files of a tar that is deleted."""
    for kind in (INDEX, SEEK):
        forget(tar, kind)


def forget(tar: epath.Path, kind: str) -> None:
    """Removes one kept file from each place."""
    for path in _paths(tar, kind):
        with contextlib.suppress(OSError):
            path.unlink()


def _paths(tar: epath.Path, kind: str) -> list[epath.Path]:
    """The places of a kept file, the best one first."""
    where = os.path.abspath(tar) if files.is_local(tar) else os.fspath(tar)
    digest = hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    cached = epath.Path(cache).expanduser() / "sa1b_tfds" / f"{digest}.{kind}"
    return [cached] if kind == ENDS else [tar.parent / f".{tar.name}.{kind}", cached]
