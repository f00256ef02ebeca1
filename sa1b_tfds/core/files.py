"""Files that appear whole or not at all.

Object stores (gs://, s3://) have no links, locks or fsync, and show a file only when it is closed:
there each function does what it can.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from etils import epath

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Bytes between two syncs: enough that threads and syncs are few, so little that the last is short.
_SEND_BYTES = 64 * 2**20
_ABANDONED_S = 3600.0  # a draft of `write_whole` is written in seconds
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)


class FolderInUse(RuntimeError):
    """Another process works in the folder."""


@contextmanager
def os_errors_named(name: str) -> Iterator[None]:
    """Names what was read, in an error of the disk (EIO) that names no file."""
    try:
        yield
    except OSError as e:
        if e.filename is None and e.errno is not None and e.errno not in DISK_FULL:
            e.filename = name
        raise


def is_local(path: epath.PathLike) -> bool:
    return "://" not in os.fspath(path)


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
    found_there = epath.Path(path).stat()
    return Stat(found_there.length, int(found_there.mtime), not found_there.is_directory)


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
    """Syncs a file now and then while it is being written, in a thread.

    So the disk works while the next bytes are made, and the last sync is short.
    """

    def __init__(self, path: epath.PathLike):
        self._path = path
        self._unsent = 0
        self._sending: threading.Thread | None = None
        self._error: OSError | None = None

    def written(self, size: int) -> None:
        """Says that `size` more bytes were written."""
        self._unsent += size
        busy = self._sending is not None and self._sending.is_alive()
        if self._unsent >= _SEND_BYTES and not busy:
            self._unsent = 0
            self._sending = threading.Thread(target=self._send)
            self._sending.start()

    def finish(self) -> None:
        """Returns when all bytes would survive a power cut; raises what the disk said."""
        if self._sending is not None:
            self._sending.join()
        if self._error is not None:
            raise self._error
        sync(self._path)

    def _send(self) -> None:
        try:
            sync(self._path)
        except OSError as e:
            self._error = e


def write_whole(path: epath.Path, content: bytes) -> None:
    """Replaces `path`: a reader finds the old content or the new, never half.

    Several processes may do it at a time. What one that was killed has left is removed later on.
    """
    draft = path.parent / f"{path.name}.{os.getpid()}.part"
    _remove_abandoned(path)
    try:
        draft.write_bytes(content)
        sync(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _remove_abandoned(path: epath.Path) -> None:
    if is_local(path):
        for draft in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            with suppress(FileNotFoundError):
                if time.time() - os.stat(draft).st_mtime > _ABANDONED_S:
                    draft.unlink()


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


@contextmanager
def locked(folder: epath.Path) -> Iterator[None]:
    """Holds a folder for this process; the kernel lets go of it however the process ends.

    Raises:
      FolderInUse: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not is_local(folder):
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"Another process works in {folder}. Wait for it or stop it, then start this one"
                " again: it goes on where the other ended."
            ) from None
        yield
    finally:
        os.close(handle)
