"""Files that appear whole or not at all.

A full disk is one error everywhere, `DiskFull`. `lock.py` keeps other processes out of a folder.
Object stores (gs://, s3://) show a file only when it was closed and know no links, locks or fsync.
"""

from __future__ import annotations

import datetime
import errno
import functools
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Bytes between two syncs in the background: few threads and syncs, and a short last sync.
_SYNC_BYTES = 64 * 2**20
_ABANDONED_S = 3600.0  # a draft of `write_whole` is written in seconds
_DRAFT = re.compile(r"(.+)\.[0-9]+\.part", re.DOTALL)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)


class DiskFull(OSError):
    """The disk or the quota is used up, or what is to be written does not fit. It says where."""


@contextmanager
def full_disk_named(where: str) -> Iterator[None]:
    """Raises `DiskFull` in place of the system's error, which does not say where the disk is full.

    A `DiskFull` that was raised nearer to the place stays as it is.

    Args:
      where: the end of the sentence, such as "while writing /data/a.tar".
    """
    try:
        yield
    except DiskFull:
        raise
    except OSError as e:
        if e.errno not in _DISK_FULL:
            raise
        raise DiskFull(e.errno, f"{os.strerror(e.errno)} {where}") from e


@contextmanager
def os_errors_named(name: str) -> Iterator[None]:
    """Names what was read, in an error of the disk (EIO) that names no file."""
    try:
        yield
    except OSError as e:
        if e.filename is None and e.errno is not None and e.errno not in _DISK_FULL:
            e.filename = name
        raise


def is_local(path: epath.PathLike) -> bool:
    return "://" not in os.fspath(path)


def _epath_uses_tensorflow() -> bool:
    """Whether epath asks TensorFlow for object stores, and not fsspec, as Python was started."""
    return os.environ.get("EPATH_USE_TF", "").lower() not in ("false", "no", "f", "0")


def object_store(path: epath.PathLike) -> Any:
    """fsspec's file system of a path; None if the path is local or TensorFlow reads it.

    fsspec keeps one for each process. epath keeps its own, which a forked process cannot use.
    """
    if is_local(path) or _epath_uses_tensorflow():
        return None
    import fsspec  # an extra installs it

    return fsspec.filesystem(os.fspath(path).partition("://")[0])


def is_of_tensorflow(path: epath.PathLike) -> bool:
    """Whether TensorFlow's file system of an object store reads a path."""
    return not is_local(path) and _epath_uses_tensorflow()


def refuse_s3_of_tensorflow(path: epath.PathLike) -> None:
    """Raises a ValueError for an s3:// path that epath would ask TensorFlow for, which has no s3://.

    epath asks fsspec instead if the environment variable says so when Python starts.
    """
    if os.fspath(path).startswith("s3:/") and _epath_uses_tensorflow():
        raise ValueError(
            f"TensorFlow has no file system for s3://, so {os.fspath(path)} cannot be read: set"
            " EPATH_USE_TF=false before Python starts, and install the extra: pip install"
            " 'sa1b_tfds[s3]'. Then sa1b_tfds.grain, SA1BDataset, read_tars and builds read it"
            " (docs/scale-out.md)."
        )


class Stat(NamedTuple):
    """bytes: its size. modified: seconds since 1970. is_file: not a folder, pipe or device."""

    bytes: int
    modified: int
    is_file: bool


def stat_of(path: epath.PathLike) -> Stat:
    """What is at a path; links are followed.

    epath asks for the owner's name as well, and fails where an owner has none, as on a shared disk.

    Raises:
      OSError: if nothing is there, among others.
    """
    if is_local(path):
        found = os.stat(path)
        return Stat(found.st_size, int(found.st_mtime), stat.S_ISREG(found.st_mode))
    if (system := object_store(path)) is not None:
        info = system.info(os.fspath(path))
        modified = info.get("mtime") or info.get("LastModified")
        return Stat(info["size"] or 0, _seconds(modified), info["type"] == "file")
    found_there = epath.Path(path).stat()
    return Stat(found_there.length, int(found_there.mtime), not found_there.is_directory)


def _seconds(modified: Any) -> int:
    """fsspec's time of change in seconds since 1970; 0 where it has none."""
    if isinstance(modified, datetime.datetime):
        modified = modified.timestamp()
    return int(modified or 0)


def sync(path: epath.PathLike) -> None:
    """Makes a file's bytes, or the names in a folder, survive a power cut."""
    if not is_local(path):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BackgroundSync:
    """Syncs a file in a thread while it is being written.

    So the disk works while the next bytes are made, and the sync at the end is short.
    """

    def __init__(self, path: epath.PathLike):
        self._path = path
        self._unsynced = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def written(self, size: int) -> None:
        """Takes the number of bytes written since the last call."""
        self._unsynced += size
        busy = self._thread is not None and self._thread.is_alive()
        if self._unsynced >= _SYNC_BYTES and not busy:
            self._unsynced = 0
            self._thread = threading.Thread(target=self._sync)
            self._thread.start()

    def finish(self) -> None:
        """Returns when all bytes would survive a power cut; raises the disk's error."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        sync(self._path)

    def _sync(self) -> None:
        try:
            sync(self._path)
        except OSError as e:
            self._error = e


def write_whole(path: epath.Path | Path, content: bytes, *, alone: bool = False) -> None:
    """Replaces `path`: a reader finds the old content or the new, never half.

    Args:
      path: the file.
      content: all of it.
      alone: no other process writes this file meanwhile, as the caller holds a lock. The draft then
        has one name, so that kills leave one draft at most. By default several processes may write
        the file, and drafts that a kill left are removed an hour later.

    Raises:
      DiskFull: if the disk is full; the old content stays.
    """
    if not is_local(path):
        path.write_bytes(content)
        return
    draft = path.parent / f"{path.name}{'.tmp' if alone else f'.{os.getpid()}.part'}"
    if not alone:
        _remove_abandoned(path)
    try:
        with full_disk_named(f"while writing {path}"):
            draft.write_bytes(content)
            sync(draft)
            give_name(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def give_name(draft: epath.Path | Path, path: epath.Path | Path) -> None:
    """Renames a synced file or folder, so that the new name survives a power cut.

    A file that has the name is replaced.
    """
    draft.replace(path)
    sync(path.parent)


def _remove_abandoned(path: epath.Path | Path) -> None:
    if is_local(path):
        hour = int(time.time() // _ABANDONED_S)
        for name in _drafts_in(os.fspath(path.parent), hour).get(path.name, ()):
            draft = os.path.join(path.parent, name)
            with suppress(FileNotFoundError):
                if time.time() - os.stat(draft).st_mtime > _ABANDONED_S:
                    os.unlink(draft)


@functools.lru_cache(maxsize=8)
def _drafts_in(folder: str, hour: int) -> dict[str, list[str]]:
    """The drafts in a folder, by the name of what they are drafts of.

    The folder is listed once an hour, and not for each file: it may get a file for each of 1,000
    tars, and would be listed 1,000 times.
    """
    found: dict[str, list[str]] = {}
    with suppress(OSError):  # it may be written but not listed
        for name in os.listdir(folder):
            if draft := _DRAFT.fullmatch(name):
                found.setdefault(draft[1], []).append(name)
    return found


def link_or_copy(source: epath.Path, target: epath.Path) -> None:
    """Gives a file a second name; where the file system cannot, a copy."""
    if is_local(source) and is_local(target):
        try:
            os.link(source, target)
            return
        except OSError as e:
            if e.errno not in _NO_LINKS:
                raise
    source.copy(target)
    sync(target)


def free_bytes(folder: epath.PathLike) -> int | None:
    """Bytes that may still be written in `folder`, which need not exist; None if unknown."""
    if not is_local(folder):
        return None
    path = epath.Path(os.path.abspath(folder))  # etils for Python 3.10 has no `absolute`
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
