"""Files that appear whole or not at all, on a local disk; and as well as it can be done elsewhere.

Object stores (gs://, s3://) show a file only when it was closed and know no links, locks or fsync.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)


class FolderInUse(RuntimeError):
    """Another process works in the folder."""


def is_local(path: epath.PathLike) -> bool:
    return "://" not in os.fspath(path)


def sync(path: epath.PathLike) -> None:
    """Makes a file's bytes, or the names in a folder, survive a power cut."""
    if not is_local(path):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: epath.Path, content: bytes) -> None:
    """Replaces `path`: a reader finds the old content or the new, never half."""
    draft = path.parent / f"{path.name}.{os.getpid()}.part"
    draft.write_bytes(content)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


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
    path = epath.Path(folder).absolute()
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
