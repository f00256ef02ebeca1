"""What is kept of a tar, so that it need not be found again: its index, its seek points.

It lies beside the tar as `.<name>.<kind>`, or, where that folder cannot be written, in
`$XDG_CACHE_HOME/sa1b_tfds` (default `~/.cache/sa1b_tfds`). It is a shortcut and nothing to rely on:
whoever reads it compares the tar's `stamp` and a checksum, and makes it again if they are wrong.
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

INDEX, SEEK = "index", "seek"

_Content = TypeVar("_Content")


def stamp_of(tar: epath.Path) -> tuple[int, int]:
    """Size and time of change, as finely as the file system tells it.

    Raises:
      FileNotFoundError: if it is not there.
    """
    if files.is_local(tar):
        stat = os.stat(tar)
        return stat.st_size, stat.st_mtime_ns
    told = files.stat_of(tar)
    return told.bytes, told.modified * 10**9


def load(tar: epath.Path, kind: str, parse: Callable[[epath.Path], _Content]) -> _Content | None:
    """What `parse` makes of a kept file; None if there is none that it can make something of.

    `parse` raises a ValueError, TypeError or KeyError where the file is not to be believed.
    """
    for path in _paths(tar, kind):
        try:
            return parse(path)
        except (ValueError, TypeError, KeyError) as e:
            logging.info("%s is of no use and made again: %s", path, e)
        except Exception:  # not there, no right to read it, or no such storage
            continue
    return None


def keep(tar: epath.Path, kind: str, content: bytes) -> bool:
    """Writes it where it may be written; returns whether that was somewhere."""
    for path in _paths(tar, kind):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, content)
        except Exception as e:  # each kind of storage has its own; it may go unkept
            logging.info("The %s of %s cannot be kept in %s: %s", kind, tar.name, path, e)
        else:
            return True
    return False


def forget_all(tar: epath.Path) -> None:
    """Removes all that is kept of a tar, which is deleted."""
    for kind in (INDEX, SEEK):
        forget(tar, kind)


def forget(tar: epath.Path, kind: str) -> None:
    """Removes it, wherever it is kept."""
    for path in _paths(tar, kind):
        with contextlib.suppress(OSError):
            path.unlink()


def _paths(tar: epath.Path, kind: str) -> list[epath.Path]:
    """Where it may lie, the best place first."""
    beside = tar.parent / f".{tar.name}.{kind}"
    where = os.path.abspath(tar) if files.is_local(tar) else os.fspath(tar)
    digest = hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return [beside, epath.Path(cache).expanduser() / "sa1b_tfds" / f"{digest}.{kind}"]
